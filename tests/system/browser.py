"""Pages opened in headless Chromium, for the system tests."""
import shutil
import subprocess
import tempfile

CHROMIUM = shutil.which("chromium")


def browse(page, size="1280,5200"):
    """The page as it stands when its scripts are done, and the lines of the console; keeps a picture beside it."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
             "--enable-logging=stderr", f"--window-size={size}", "--virtual-time-budget=8000", "--dump-dom",
             f"--screenshot={page.with_suffix('.png')}", page.as_uri()],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
