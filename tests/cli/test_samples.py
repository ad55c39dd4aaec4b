from featx.cli import main


def test_samples_are_listed_and_written(tmp_path, capsys):
    assert main(["samples"]) == 0
    assert "fashion-mnist: train, test" in capsys.readouterr().out
    assert main(["samples", "photos", "-o", str(tmp_path / "photos")]) == 0
    assert (tmp_path / "photos" / "china.jpg").is_file()
    assert main(["samples", "photos"]) == 2
    assert "add -o FOLDER" in capsys.readouterr().err
    assert main(["samples", "photos", "-o", str(tmp_path / "photos")]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main(["samples", "-o", str(tmp_path / "new")]) == 2
    assert "add the name" in capsys.readouterr().err
