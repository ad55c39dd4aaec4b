"""List the images of folders, tables, archives and remote addresses, with their labels."""
