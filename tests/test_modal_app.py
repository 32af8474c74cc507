"""The deployment on Modal, as far as it can be held without an account: what is asked of Modal, and snapshots."""

import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import CheckpointError, ConfigError
from core.settings.sections import ServerConfig
from tests.deployed import AFTER, BEFORE, EXIT, ROOT, Deployed, container, deploy, hooks, place

pytestmark = pytest.mark.modal
__all__ = ["place"]  # a fixture


def names(objects: Any) -> list[str]:
    return [repr(thing) for thing in objects]


def test_the_gpu_function(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = Deployed(monkeypatch)
    asked, environment = deployed.asked["Gpu.*"], deployed.app.deployment.environment()
    assert asked["gpu"] == "A10G"
    assert asked["max_concurrent_inputs"] == 3 == int(environment["PERSONAPLEX_ENGINE__SLOTS"])
    assert (asked["min_containers"], asked["max_containers"]) == (0, 3)
    assert asked["scaledown_window"] == 300
    assert asked["timeout"] >= ServerConfig().queue_wait_s + 900 + 30
    assert asked["enable_memory_snapshot"]
    assert asked["experimental_options"]["enable_gpu_snapshot"]
    assert set(asked["volumes"]) == {"/data", "/compiled"}
    assert any("personaplex" in secret for secret in names(asked["secrets"]))
    assert environment["PERSONAPLEX_ENGINE__OFFLINE"] == "true", "a start downloads nothing"
    assert environment["PERSONAPLEX_ENGINE__CACHE"].startswith("/data/")


def test_the_page_has_no_gpu_and_the_hub_s_token_is_for_the_download_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Deployed(monkeypatch).asked
    for name in ("Page.*", "download"):
        assert asked[name]["gpu"] is None
    assert ["huggingface" in str(names(asked[name]["secrets"])) for name in ("Gpu.*", "Page.*", "download")] == [
        False,
        False,
        True,
    ]
    assert set(asked["Page.*"]["volumes"]) == {"/data"}
    assert asked["Page.*"]["max_containers"] == 1


def test_the_operator_s_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"GPU": "L40S", "SLOTS": "15", "MAX_CONTAINERS": "7", "GPU_SNAPSHOT": "false", "REGION": "eu"}
    deployed = Deployed(monkeypatch, **chosen)
    asked = deployed.asked["Gpu.*"]
    assert (asked["gpu"], asked["max_concurrent_inputs"], asked["max_containers"]) == ("L40S", 15, 7)
    environment = deployed.app.deployment.environment()
    assert environment["PERSONAPLEX_ENGINE__SLOTS"] == "15"
    assert asked["region"] == "eu"
    assert "enable_gpu_snapshot" not in asked["experimental_options"]
    again = deployed.app.Deployment.read(environment)
    assert again == deployed.app.deployment, "a container must know what was chosen"


@pytest.mark.parametrize(("name", "value"), [("SLOTS", "many"), ("GPU_SNAPSHOT", "perhaps"), ("MAX_CONTAINERS", "-1")])
def test_a_wrong_choice_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"PERSONAPLEX_MODAL_{name}.*{value}"):
        Deployed(monkeypatch, **{name: value})


def test_deploying_needs_modal_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {line.split(">")[0].split("[")[0].strip() for line in project["dependencies"]}
    modals = {"click", "rich", "watchfiles"}  # which Modal's client brings itself
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {sorted({name.replace('-', '_') for name in ours - modals})} + "
        "['core', 'plugins', 'yaml']:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import modal_app\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_image_is_made_of_pyproject_and_the_code_laid_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = Deployed(monkeypatch, FOLDERS="docs nowhere")
    commands = "\n".join(deployed.layers)
    assert "/.pyproject.toml" in commands
    assert "uv sync" in commands
    assert "--no-dev" in commands
    assert "torch" not in commands, "there is no second list of packages"
    assert "core" not in commands, "an edit of the code builds no layer"
    named = ("core", "plugins", "personas", "web", "config.yaml", "docs")
    assert {f"/root/{name}": ROOT / name for name in named}.items() <= deployed.laid_over.items()
    assert "/root/nowhere" not in deployed.laid_over


# Snapshots.


def sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the listing's own
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def test_before_the_snapshot_the_engine_is_warm_and_nothing_is_open(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    gpu = container(deploy(monkeypatch, place), "Gpu")
    assert (list(hooks(gpu, BEFORE)), list(hooks(gpu, AFTER)), list(hooks(gpu, EXIT))) == (
        ["load"],
        ["start"],
        ["stop"],
    )
    before, threads = sockets(), set(threading.enumerate())
    hooks(gpu, BEFORE)["load"]()
    engine = gpu.engine
    assert sockets() == before
    assert [thread.name for thread in set(threading.enumerate()) - threads] == ["engine"]
    assert gpu.service is None, "plugins and routes come after"
    hooks(gpu, AFTER)["start"]()
    assert gpu.engine is engine, "what was in the picture is used"
    assert sockets() == before, "Modal listens; we do not"
    hooks(gpu, EXIT)["stop"]()
    assert set(threading.enumerate()) <= threads


def test_without_gpu_snapshots_nothing_asks_for_a_card_before(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    gpu = container(deploy(monkeypatch, place, GPU_SNAPSHOT="false"), "Gpu")

    def asked(*_: object) -> bool:
        raise AssertionError("CUDA was asked for before there is a card")

    with monkeypatch.context() as patched:
        for name in ("is_available", "_lazy_init", "device_count", "current_device"):
            patched.setattr(torch.cuda, name, asked)
        hooks(gpu, BEFORE)["load"]()
    assert not gpu.engine
    hooks(gpu, AFTER)["start"]()
    assert gpu.engine.info.slots == 2
    hooks(gpu, EXIT)["stop"]()


def test_calls_longer_than_modal_allows_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    gpu = container(deploy(monkeypatch, place, TIMEOUT_S="600"), "Gpu")
    with pytest.raises(ValueError, match="PERSONAPLEX_MODAL_TIMEOUT_S=1050"):
        hooks(gpu, AFTER)["start"]()


def test_a_cold_volume_says_what_to_run(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    app = deploy(monkeypatch, place)
    monkeypatch.setenv("PERSONAPLEX_ENGINE__NAME", "personaplex")
    monkeypatch.setenv("PERSONAPLEX_ENGINE__CACHE", str(place / "cache"))
    monkeypatch.setenv("PERSONAPLEX_ENGINE__OFFLINE", "true")
    for name, flag, hook in (("Gpu", BEFORE, "load"), ("Page", AFTER, "start")):
        with pytest.raises(CheckpointError, match=r"modal run modal_app\.py::download"):
            hooks(container(app, name), flag)[hook]()


def test_without_a_password_nothing_is_served(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.delenv("PERSONAPLEX_PASSWORD")
    page = container(deploy(monkeypatch, place), "Page")
    with pytest.raises(ConfigError, match="PERSONAPLEX_PASSWORD"):
        hooks(page, AFTER)["start"]()


@pytest.mark.filterwarnings("ignore:The download function is executing locally")
def test_the_download_lists_what_is_there(
    monkeypatch: pytest.MonkeyPatch, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(monkeypatch, place).download.local()
    assert "nano, with the voices NATF2, NATM2, VARF0, VARM0" in capsys.readouterr().out


def test_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Deployed(monkeypatch).app
    assert app.hourly("A10G", 0, 0) == pytest.approx(1.1016)
    assert app.hourly("", 2, 8) == pytest.approx(3600 * (2 * 0.0000131 + 8 * 0.00000222))
    table = app.cost_table("A10G", 4, 300)
    hour = app.hourly("A10G", 2, 8)
    for dollars in (hour, hour / 2, hour / 4, hour / 12):
        assert f"${dollars:7.3f}" in table
