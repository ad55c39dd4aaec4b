"""Read PNG with a transparent colour of 16 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

__all__ = ["Png"]


class Png(PngImagePlugin.PngImageFile):
    """Compare the transparent colour in the file's own depth, as PNG requires; Pillow compares reduced samples."""

    def _open(self) -> None:
        super()._open()
        rawmode = str(self.tile[0].args) if self.tile else ""
        clear = self.info.get("transparency")
        if isinstance(clear, int) and rawmode in ("L;2", "L;4"):
            self.info["transparency"] = clear * (85 if rawmode == "L;2" else 17)
        self._clear: tuple[int, int, int] | None = None
        if isinstance(clear, tuple) and rawmode == "RGB;16B":
            self._clear = self.info.pop("transparency")
            assert isinstance(self.fp, io.BytesIO)
            self._data = self.fp.getvalue()

    def load(self) -> Any:
        """Decode the pixels, and paint the transparent colour white."""
        pixels = super().load()
        if self._clear:
            clear, self._clear = self._clear, None
            low = PngImagePlugin.PngImageFile(io.BytesIO(self._data))  # the low bytes: read in the wrong order
            low.tile = [low.tile[0]._replace(args="RGB;16L")]
            for y in range(0, self.height, 64):
                box = (0, y, self.width, min(y + 64, self.height))
                high8, low8 = np.asarray(self.crop(box)), np.asarray(low.crop(box))
                is_clear = (high8.astype(np.uint16) << 8 | low8) == np.array(clear, np.uint16)
                self.paste((255, 255, 255), box, Image.fromarray(is_clear.all(axis=2)))
            del self._data
        return pixels
