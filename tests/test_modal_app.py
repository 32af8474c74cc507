"""The deployment on Modal, as far as it can be held without an account: what is asked of Modal, snapshots, costs."""

import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import CheckpointError, ConfigError
from deploy import prices
from deploy.choices import Deployment
from deploy.voice_index import INDEX, VoiceIndex
from tests.deployed import AFTER, BEFORE, EXIT, ROOT, Deployed, container, deploy, hooks, place

pytestmark = pytest.mark.modal
__all__ = ["place"]  # a fixture


def names(objects: Any) -> list[str]:
    return [repr(thing) for thing in objects]


def test_the_gpu_function_has_no_address_and_serves_one_call_of_modal_s(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = Deployed(monkeypatch)
    asked, environment = deployed.asked["Gpu.*"], deployed.app.deployment.environment()
    assert asked["gpu"] == "A10G"
    assert asked["single_use_containers"], "an engine that failed is not used again"
    assert not asked["max_concurrent_inputs"]
    assert (asked["min_containers"], asked["max_containers"]) == (0, 1)
    assert asked["timeout"] == 86_400
    assert asked["enable_memory_snapshot"]
    assert asked["experimental_options"]["enable_gpu_snapshot"]
    assert asked["memory"] == 26 * 1024
    assert set(asked["volumes"]) == {"/data", "/compiled", "/recordings"}
    assert any("personaplex" in secret for secret in names(asked["secrets"]))
    assert environment["PERSONAPLEX_ENGINE__OFFLINE"] == "true", "a start downloads nothing"
    assert environment["PERSONAPLEX_ENGINE__CACHE"] == "/data/cache"
    assert (environment["PERSONAPLEX_ENGINE__SLOTS"], environment["PERSONAPLEX_ENGINE__KV_CACHE"]) == ("6", "int8")
    webs = [name for name, _ in vars(deployed.app.Gpu._get_user_cls()).items() if name == "web"]
    assert not webs, "nothing that a stranger can reach starts a GPU"


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
    chosen = {"GPU": "l40s", "SLOTS": "15", "MAX_CONTAINERS": "7", "GPU_SNAPSHOT": "false", "REGION": "eu-west"}
    deployed = Deployed(monkeypatch, **chosen)
    asked = deployed.asked["Gpu.*"]
    assert (asked["gpu"], asked["max_containers"], asked["region"]) == ("l40s", 7, "eu-west")
    assert "enable_gpu_snapshot" not in asked["experimental_options"]
    environment = deployed.app.deployment.environment()
    assert environment["PERSONAPLEX_ENGINE__SLOTS"] == "15"
    again = Deployment.read({name: str(value) for name, value in environment.items()})
    assert again == deployed.app.deployment, "a container must know what was chosen"
    assert again.deployed > 0, "and one deployment from the next"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SLOTS", "many", "whole number, not 'many'"),
        ("SLOTS", "0", "at least 1, not 0"),
        ("MAX_CONTAINERS", "0", "at least 1, not 0"),
        ("MAX_CONTAINERS", "-1", "whole number, not '-1'"),
        ("MIN_CONTAINERS", "2", "more than MAX_CONTAINERS, 1"),
        ("SCALEDOWN_S", "1", "at least 10, not 1"),
        ("GPU_SNAPSHOT", "perhaps", "true or false, not 'perhaps'"),
        ("GPU", "A11", "'A11' is no GPU of Modal's"),
        ("GPU", "A10G:2", "One container runs one engine on one card"),
        ("KV_CACHE", "int4", "one of auto, bfloat16, int8, not 'int4'"),
        ("WEIGHTS", "bfloat16", "one of auto, int8, not 'bfloat16'"),
        ("NAME", "Try It", "small letters, digits and '-', not 'Try It'"),
        ("REGION", "Europe", "a region such as eu or us-west, not 'Europe'"),
        ("MAX_CONTAINER", "1", "Is it PERSONAPLEX_MODAL_MAX_CONTAINERS?"),
        ("CARDS", "1", "There are PERSONAPLEX_MODAL_NAME, PERSONAPLEX_MODAL_GPU,"),
    ],
)
def test_a_wrong_choice_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    with pytest.raises(ValueError, match="PERSONAPLEX_MODAL_") as refused:
        Deployed(monkeypatch, **{name: value})
    assert f"PERSONAPLEX_MODAL_{name}" in str(refused.value)
    assert said in str(refused.value)


def test_a_wrong_config_is_not_deployed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = Deployed(monkeypatch).app
    monkeypatch.setattr(app, "ROOT", tmp_path)
    (tmp_path / "config.yaml").write_text(
        "session: {max_s: long}\nplugins: {options: {password: {named: {ann: {env: ANNS_PASSWORD}}}}}"
    )
    with pytest.raises(ValueError, match=r"nothing is deployed:\n.*session\.max_s") as refused:
        app.check_settings({})
    assert "ANNS_PASSWORD" not in str(refused.value), "it may be in the secret"


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
    hooks(gpu, AFTER)["start"]()
    assert gpu.engine is engine, "what was in the picture is used"
    assert sockets() == before, "plugins and the listening port come after"
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


async def test_a_start_that_fails_is_the_call_s_failure_and_not_the_start_s(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """Modal repeats a start that raises, at the operator's cost; a call that raises it does not."""
    gpu = container(deploy(monkeypatch, place), "Gpu")
    monkeypatch.setenv("PERSONAPLEX_ENGINE__NAME", "personaplex")
    monkeypatch.setenv("PERSONAPLEX_ENGINE__CACHE", str(place / "cache"))
    monkeypatch.setenv("PERSONAPLEX_ENGINE__OFFLINE", "true")
    hooks(gpu, BEFORE)["load"]()
    hooks(gpu, AFTER)["start"]()
    with pytest.raises(CheckpointError, match=r"modal run modal_app\.py::download"):
        await type(gpu).serve._get_raw_f()(gpu)
    hooks(gpu, EXIT)["stop"]()


def test_a_picture_without_an_engine_is_made_good_at_the_start(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    gpu = container(deploy(monkeypatch, place), "Gpu")
    (place / "config.yaml").write_text("session: {max_s: never}")
    with monkeypatch.context() as broken:
        broken.setenv("PERSONAPLEX_SERVER__PORT", "none")
        hooks(gpu, BEFORE)["load"]()
    assert isinstance(gpu.failure, ConfigError)
    hooks(gpu, AFTER)["start"]()
    assert not gpu.failure
    assert gpu.engine.info.slots == 2
    hooks(gpu, EXIT)["stop"]()


async def test_a_cold_volume_says_what_to_run(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    app = deploy(monkeypatch, place)
    (place / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"modal run modal_app\.py::download"):
        await hooks(container(app, "Page"), AFTER)["start"]()


async def test_without_a_password_nothing_is_served(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.delenv("PERSONAPLEX_PASSWORD")
    page = container(deploy(monkeypatch, place), "Page")
    with pytest.raises(ConfigError, match="PERSONAPLEX_PASSWORD"):
        await hooks(page, AFTER)["start"]()


@pytest.mark.filterwarnings("ignore:The download function is executing locally")
def test_the_download_lists_what_is_there_whatever_passwords_it_has_no_secret_for(
    monkeypatch: pytest.MonkeyPatch, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "config.yaml").write_text("plugins: {options: {password: {named: {ann: {env: ANNS_PASSWORD}}}}}")
    (place / INDEX).unlink()
    deploy(monkeypatch, place).download.local()
    assert "nano, with the voices NATF2, NATM2, VARF0, VARM0" in capsys.readouterr().out
    assert VoiceIndex.read(place).voices == ("NATF2", "NATM2", "VARF0", "VARM0")


def test_the_page_s_container_needs_no_torch(place: Path) -> None:
    program = (
        "import sys, deploy.page, core.plugin.host, core.plugin.discovery\n"
        "from core.settings.config import Config\n"
        "core.plugin.host.PluginHost.load(Config())\n"
        "assert not {'torch', 'moshi', 'triton'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Costs.


def test_every_name_of_a_card_has_a_price_and_others_have_none() -> None:
    assert prices.hourly("A10G", 0, 0) == prices.hourly("a10", 0, 0) == pytest.approx(1.1016)
    assert prices.hourly("", 2, 8) == pytest.approx(3600 * (2 * 0.0000131 + 8 * 0.00000222))
    assert prices.hourly("A100", 0, 0) == prices.hourly("A100-40GB", 0, 0) < prices.hourly("A100-80GB", 0, 0)
    assert prices.hourly("H100!", 0, 0) == prices.hourly("h100", 0, 0) < prices.hourly("H200", 0, 0)
    for unknown in ("A11", "free", "H100:2", "A10G "):
        with pytest.raises(ValueError, match="no GPU of Modal's"):
            prices.hourly(unknown, 0, 0)


def test_a_region_costs_more() -> None:
    assert prices.gpu_hour("L4", "eu") == pytest.approx(1.5 * prices.gpu_hour("L4"))
    assert prices.gpu_hour("L4", "us-west") == pytest.approx(1.75 * prices.gpu_hour("L4"))


def test_the_day_s_bound_is_the_month_s() -> None:
    month = prices.month
    assert month("A10G", prices.Usage(0)) == (0, 0)
    hours, dollars = month("A10G", prices.Usage(10_000), gpu_minutes=480)
    assert hours == 30 * 8
    assert dollars == pytest.approx(30 * 8 * (prices.gpu_hour("A10G") + prices.page_hour()))
    assert month("A10G", prices.Usage(10_000))[0] == 30 * 24, "one container"


def test_what_it_costs_is_told_without_an_account_or_a_secret(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PERSONAPLEX_MODAL_GPU": "l4", "HOME": str(tmp_path)}
    program = (
        "import sys; sys.modules['modal'] = None; import runpy; runpy.run_module('deploy.prices', run_name='__main__')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("L4, 6 slots")
    assert "a month of 200 calls a day" in shown
    refused = subprocess.run(
        [sys.executable, "-m", "deploy.prices", "--gpu", "A11"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "It takes A10, A100," in refused.stderr
