import subprocess
import sys

# Importing the package and running the demo model must cost no provider library: seconds of CPU, 80 MiB.
LIGHT = """
import sys
from app.providers import Providers, check_model, default_model
from app.settings import Settings

settings = Settings.of(openai_api_key="k")
default_model(settings)
check_model(settings, "google:gemini-3.8-flash")
providers = Providers(settings)
providers.model("demo")
loaded = [name for name in ("openai", "anthropic", "google.genai") if name in sys.modules]
assert not loaded, loaded
providers.model("openai:gpt-6-luna")
assert "openai" in sys.modules
assert "anthropic" not in sys.modules and "google.genai" not in sys.modules
"""


def test_provider_libraries_are_imported_when_used() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
