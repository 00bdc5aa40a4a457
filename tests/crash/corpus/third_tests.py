import subprocess


def test_prints_its_checksum() -> None:
    out = subprocess.run(["./app"], check=True, capture_output=True, text=True)
    assert out.stdout.startswith("checksum")
