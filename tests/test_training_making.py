"""`make`: the plan for a machine, and rehearsals of whole runs on the CPU, with real stages in real processes."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import click
import msgspec
import pytest
import torch
from safetensors.torch import save_file

from training.lm import TrainingState
from training.making.conductor import Conductor
from training.making.folder import claim, is_running
from training.making.packed import LOGS
from training.making.plan import (
    CODED_HOURS,
    RESERVE_S,
    STARTUP_S,
    Job,
    Machine,
    Request,
    encoding,
    is_there,
    plan,
    roles,
)
from training.making.processes import Running, wait_until
from training.making.starting import copy_source
from training.making.watching import GOES_ON
from training.packing import DECODER, pack, pieces_in, unpack

pytestmark = pytest.mark.training
GROUP = "the training group is not installed: uv sync --group training"
pytest.importorskip("espeakng_loader", reason=GROUP)
PROJECT = Path(__file__).parents[1]


def planned(gpus: int, minutes: float) -> tuple[Request, dict[str, Job]]:
    """The jobs by name for a machine with 16 cores a GPU."""
    request = Request(minutes * 60, "packed", 0.0, flite="", rhvoice="rhvoice", voices="voices")
    jobs = plan(Machine(tuple(map(str, range(gpus))), 16 * gpus), request)
    assert len({job.name for job in jobs}) == len(jobs), "each has a log of its own"
    return request, {job.name: job for job in jobs}


def on(jobs: dict[str, Job], second: float, gpu: str) -> list[str]:
    """The kinds of jobs that a GPU has at a time, if all that they need is there."""
    names = [name for name, job in jobs.items() if gpu in job.gpus and job.begins <= second < job.ends]
    return sorted({name.rpartition("-")[0] or name for name in names})


@pytest.mark.parametrize(
    ("gpus", "learners", "encoders", "decoder"),
    [(1, "0", "0", "0"), (2, "0", "1", "1"), (3, "01", "2", "2"), (4, "01", "2", "3"), (8, "01234", "56", "7")],
)
def test_who_does_what(gpus: int, learners: str, encoders: str, decoder: str) -> None:
    parts = roles(tuple(map(str, range(gpus))))
    assert ("".join(parts.learners), "".join(parts.encoders), "".join(parts.decoder)) == (learners, encoders, decoder)


@pytest.mark.parametrize("minutes", [6, 10, 20, 30])
@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_the_plan(gpus: int, minutes: float) -> None:
    request, jobs = planned(gpus, minutes)
    parts = roles(tuple(map(str, range(gpus))))
    speaking = ["speech-callers-kokoro", "speech-kokoro"]
    for gpu in map(str, range(gpus)):
        assert on(jobs, 0.0, gpu) == speaking, "at first all speak"
        later = on(jobs, request.first_speech + 1, gpu)
        assert ("lm" in later) == (gpu in parts.learners)
        assert ("codec" in later) == (gpu in parts.decoder)
        assert "encode" in later, "the decoder's GPU has time for it, too"
        assert set(speaking) <= set(later) or gpu not in parts.encoders or gpus == 1
        assert not set(speaking) & set(later) or gpu in parts.encoders
    assert all(job.ends <= 60 * minutes - RESERVE_S for job in jobs.values() if not job.learns)
    assert max(job.ends for job in jobs.values()) == request.latest < 60 * minutes - 10
    assert (jobs["lm"].ranks, jobs["lm"].needs, jobs["lm"].learns) == (len(parts.learners), "banks", True)
    assert request.minutes(100.0) == pytest.approx(minutes - (RESERVE_S + STARTUP_S + 100) / 60)
    assert request.minutes(60 * minutes - RESERVE_S - STARTUP_S + 1) < 0
    shards = {job.gpus: job.arguments[4] for name, job in jobs.items() if name.startswith("speech-kokoro")}
    assert shards[parts.encoders[:1]] == "0", "the shipped personas are spoken where there is time for them"
    for kind in ("encode", "mix"):
        banks = [range(*map(int, job.arguments[2:4])) for name, job in jobs.items() if name.startswith(kind)]
        assert len({bank for some in banks for bank in some}) == sum(map(len, banks)), "no bank is made twice"
        assert max(map(len, banks)) > 100, "somewhere as many as there is time for"
    assert len(banks) == min(16 * gpus // 3, 6 * len(parts.learners)), "a third of the cores at most"
    assert not any(job.gpus for name, job in jobs.items() if name.startswith("mix"))
    robots = {"speech-espeak", *(f"speech-callers-{name}" for name in ("espeak", "flite", "rhvoice", "pico"))}
    assert {name for name, job in jobs.items() if job.gives_way} == robots
    lasting = [job.gpus for name, job in jobs.items() if name.startswith("lines") and job.ends == request.end]
    assert set(lasting) == {(gpu,) for gpu in encoding(parts)}
    assert all(on(jobs, request.first_speech + 1, gpu).count("lines") for gpu in map(str, range(gpus)))


def test_a_run_that_goes_on_makes_other_speech_and_banks() -> None:
    """Their numbers decide what is in them: with the same ones a second run would learn nothing that is new."""
    from training.speech import SHIPPED, episodes_of
    from training.voices import KOKORO

    machine, request = Machine(("0", "1"), 32), Request(600, "packed", 0.0, flite="", voices="voices")
    made: list[dict[str, set[int]]] = []
    for steps in (0, 1, 19_160):
        jobs = plan(machine, msgspec.structs.replace(request, steps=steps))
        made.append({})
        for job in jobs:
            for option in ("--shards", "--banks"):
                if option in job.arguments:
                    place = job.arguments.index(option)
                    made[-1][job.name] = set(range(*map(int, job.arguments[place + 1 : place + 3])))
    assert len(made[0]) > 10
    for name, first in made[0].items():
        assert len({*first, *made[1][name], *made[2][name]}) == 3 * len(first) > 0
    begin = min(made[2]["speech-kokoro-1"])
    texts = [
        {episode.prompt for episode, _ in episodes_of(KOKORO, shard).values()}
        for shard in (0, begin, SHIPPED, begin + SHIPPED)
    ]
    assert texts[0] == texts[1], "the shipped personas come first in each run"
    assert not texts[2] & texts[3], "the others are new"


def test_kokoro_is_silent_sooner_where_a_gpu_does_everything() -> None:
    ends = [max(job.ends for name, job in planned(gpus, 20)[1].items() if "kokoro" in name) for gpus in (1, 2)]
    assert ends == [pytest.approx(180), pytest.approx(600)]


def test_more_lines_get_codes_when_kokoro_is_silent() -> None:
    for gpus in (1, 2, 4):
        request, jobs = planned(gpus, 20)
        parts = roles(tuple(map(str, range(gpus))))
        for gpu in parts.encoders:
            counts = [
                sum(
                    gpu in job.gpus and job.begins <= second < job.ends for name, job in jobs.items() if "lines" in name
                )
                for second in (request.first_speech + 1, request.end - 1)
            ]
            assert (counts[1] > counts[0]) == (gpu not in parts.learners)


def test_one_gpu_that_does_everything_encodes_by_one_process() -> None:
    counts = [sum(name.startswith("encode") for name in planned(gpus, 20)[1]) for gpus in (1, 2)]
    assert counts == [1, 1 + 3], "on the second of two by three, on the first for a while"


def test_nobody_speaks_any_more_when_the_disk_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What learns must still be able to write its weights."""
    told = list[str]()
    request = Request(600, str(tmp_path / "packed"), time.monotonic(), pico=False, kokoro=False, decoder=False)
    copy_source(tmp_path)
    conductor = Conductor(
        tmp_path, request, Machine((), 2), told.append, lambda: sum("was ended: 1.5 GB" in line for line in told) == 2
    )
    left = iter([50e9] * 4)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(next(left, 1.5e9)))
    assert conductor.run() == 1
    assert [line.split()[2] for line in told if "begins" in line] == ["speech-callers-espeak", "speech-espeak"]
    assert not processes_of(tmp_path)


def usage(free: float) -> SimpleNamespace:
    """What shutil.disk_usage says of a disk with so many bytes left."""
    return SimpleNamespace(free=free)


def test_what_jobs_wait_for(tmp_path: Path) -> None:
    request = Request(600, "packed", 0.0, enough=2)
    (tmp_path / "speech").mkdir()
    (tmp_path / "banks").mkdir()
    (tmp_path / "speech" / "espeak-00000.json").touch()
    assert not is_there("speech", tmp_path, request), "there is no caller yet"
    (tmp_path / "speech" / "callers-espeak-00000.json").touch()
    assert is_there("speech", tmp_path, request)
    (tmp_path / "speech" / "espeak-00000.npy").touch()
    for name in ("special.json", "ambience.npy"):
        (tmp_path / name).touch()
    assert not is_there("codes", tmp_path, request), "no caller has codes yet"
    (tmp_path / "speech" / "callers-espeak-00000.npy").touch()
    assert not is_there("codes", tmp_path, request), "of so few lines nothing is mixed"
    with (tmp_path / "speech" / "callers-espeak-00000.pcm").open("wb") as sound:
        sound.truncate(int(CODED_HOURS * 3600 * 2 * 24_000))  # It takes no room.
    assert is_there("codes", tmp_path, request)
    for number in range(2):
        assert not is_there("banks", tmp_path, request)
        (tmp_path / "banks" / f"512-000{number}.pt").touch()
    assert is_there("banks", tmp_path, request)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    lock = claim(tmp_path)
    with pytest.raises(click.ClickException, match="A run is going on"):
        claim(tmp_path)
    assert is_running(tmp_path)
    os.close(lock)
    assert not is_running(tmp_path)


def test_a_packing_that_breaks_off_leaves_the_older_set_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.packing.PIECE_BYTES", 100)

    def write(steps: int) -> None:
        weights = {str(number): torch.full((2, 40), float(steps)) for number in range(3)}
        state: TrainingState = {"network": weights, "mean": weights, "steps": steps}
        torch.save(dict(state), tmp_path / "lm.pt")

    target = tmp_path / "packed"
    write(9)
    old = pack(tmp_path / "lm.pt", target)
    assert len(old) == 3
    write(10)
    with monkeypatch.context() as broken:
        broken.setattr("training.packing.save_file", FullDisk(after=2))
        with pytest.raises(OSError, match="full"):
            pack(tmp_path / "lm.pt", target)
    assert pieces_in(target) == old
    # Broken off between two renamings, the newer set is not whole: the older one counts.
    (target / "lm-10-0-of-3.safetensors").write_bytes(old[0].read_bytes())
    unpack(target, tmp_path / "again.pt")
    assert torch.load(tmp_path / "again.pt", weights_only=True)["steps"] == 9
    new = pack(tmp_path / "lm.pt", target)
    assert sorted(target.iterdir()) == new
    unpack(target, tmp_path / "again.pt")
    assert torch.load(tmp_path / "again.pt", weights_only=True)["mean"]["2"].eq(10).all()


class FullDisk:
    """`save_file` for so many files, and an error for the next."""

    def __init__(self, after: int) -> None:
        self._left = after

    def __call__(self, tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        if self._left == 0:
            path.write_bytes(b"half")
            raise OSError("The disk is full.")
        self._left -= 1
        save_file(tensors, path, metadata)


def test_a_stage_that_cannot_begin_says_why(tmp_path: Path) -> None:
    running = Running(Job("odd", ("no-such-stage",), (), 0.0, 60.0), tmp_path, PROJECT, 1.0)
    try:
        assert wait_until(lambda: running.code() is not None, 60)
        assert running.code() == 2
        assert "No such command" in running.last_lines()[-1]
    finally:
        running.kill()


def command(folder: Path, arguments: Sequence[str], cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Run `python -m training` as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "training", "--folder", str(folder), *arguments],
        cwd=cwd,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def processes_of(folder: Path) -> list[int]:
    """All processes that work in a run's folder, whoever has started them."""
    source, found = str(folder / "source"), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and str((entry / "cwd").readlink()).startswith(source):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A run whose project vanishes as soon as it has begun: its folder, what was brought back, and what was told."""
    base = tmp_path_factory.mktemp("making")
    project, folder, brought = base / "project", base / "folder", base / "brought"
    project.mkdir()
    for name in ("core", "training", "personas"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    began = command(folder, ["make", "--small", "--minutes", "3", "--detach"], project)
    assert began.returncode == 0, began.stderr
    shutil.rmtree(project)
    first = command(folder, ["watch", "--seconds", "0"])
    assert first.returncode == GOES_ON, first.stdout + first.stderr
    seen = command(folder, ["watch", "--seconds", "160", "--into", str(brought)])
    assert seen.returncode == 0, seen.stdout + seen.stderr
    return folder, brought, (folder / "logs" / "make.log").read_text()


@pytest.mark.slow
def test_a_run_brings_back_what_it_has_learned(rehearsal: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder, brought, told = rehearsal
    assert "FAILED" not in told
    assert told.index("packed: ") < told.index("lm begins"), "packed before the end"
    assert "packed: the language model in 1 pieces, the decoder, logs" in told.splitlines()[-1]
    files = sorted(path.name for path in brought.iterdir())
    assert files == [DECODER, "lm-" + files[1].split("-")[1] + "-0-of-1.safetensors", LOGS]
    unpack(brought, tmp_path / "lm.pt")
    packed, own = (torch.load(at / "lm.pt", weights_only=True) for at in (tmp_path, folder))
    assert packed["steps"] == own["steps"] > 0
    for name, exact in own["mean"].items():
        step = exact.abs().amax(dim=-1, keepdim=True) / 127 if exact.dim() > 1 else torch.zeros(1)
        assert bool(((packed["mean"][name] - exact).abs() <= 0.51 * step).all()), name
    decoder = torch.load(brought / DECODER, weights_only=True)
    assert {tensor.dtype for tensor in decoder["mean"].values()} == {torch.bfloat16}
    with tarfile.open(brought / LOGS) as archive:
        logs = {Path(name).stem for name in archive.getnames()}
    kinds = {"make", "lm", "codec", "encode-0", "lines-0", "mix-0", "speech-espeak", "speech-callers-espeak"}
    assert kinds <= logs
    assert sorted(path.name for path in (folder / "banks").iterdir()) == ["448-0000.pt", "mixed-448-0000.pt"]
    assert "1 mixed banks, seen" in (folder / "logs" / "lm.log").read_text()
    assert not processes_of(folder)


@pytest.mark.slow
def test_a_stage_that_fails_is_told_of_at_once(rehearsal: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder, brought, _ = rehearsal
    broken = tmp_path / "folder"
    for name in ("speech", "banks"):
        shutil.copytree(folder / name, broken / name)
    for name in ("tokenizer.model", "mimi.safetensors"):
        shutil.copy(folder / name, broken / name)
    strange: TrainingState = {"network": {"odd": torch.zeros(1)}, "mean": {"odd": torch.zeros(1)}, "steps": 5}
    pack_from = tmp_path / "strange.pt"
    torch.save(dict(strange), pack_from)
    pack(pack_from, tmp_path / "strange")
    into = tmp_path / "into"
    resume = ["--resume", str(tmp_path / "strange"), "--codec", str(brought / DECODER)]
    made = command(broken, ["make", "--small", "--minutes", "2", "--into", str(into), *resume])
    assert made.returncode == 1
    assert "FAILED: lm, exit code 1" in made.stdout
    assert "has another shape than what is trained" in made.stdout
    assert made.stdout.splitlines()[-1] == "FAILED: the language model."
    assert {DECODER, LOGS} <= {path.name for path in into.iterdir()}
    assert not processes_of(broken)


@pytest.mark.slow
def test_a_run_that_has_nobody_to_make_banks_ends_at_once(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("core", "training", "personas"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "core" / "nano" / "model.safetensors").unlink()
    made = command(tmp_path / "folder", ["make", "--small", "--minutes", "4"], project)
    assert made.returncode == 1
    assert made.stdout.count("FAILED: encode-0") == 2, "it begins once more"
    assert "model.safetensors is missing" in made.stdout
    assert "Nobody makes banks any more" in made.stdout
    assert made.stdout.splitlines()[-1] == "FAILED: the language model has not learned to the end."
    assert not processes_of(tmp_path / "folder")


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert command(folder, ["make", "--small", "--minutes", "2", "--detach"]).returncode == 0
    workers = "from multiprocessing"

    def conductor() -> int:
        """The run's own process, as soon as there are also some that a stage's pool has started."""
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in processes_of(folder)}
        pools = any(workers in line for line in lines.values())
        return next((pid for pid, line in lines.items() if "training.making" in line and pools), 0)

    assert wait_until(lambda: conductor() > 0, 90)
    os.kill(conductor(), signal.SIGKILL)
    assert wait_until(lambda: not processes_of(folder), 30), processes_of(folder)
    seen = command(folder, ["watch", "--seconds", "5"])
    assert seen.returncode == 1
    assert "was killed" in seen.stdout
