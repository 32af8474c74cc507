"""Which stage runs where and when, on so many GPUs and in so many minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from training.shards import NUMBERS_A_RUN, codes_of, hours_in, is_of_callers

RESERVE_S, SMALL_RESERVE_S = 25.0, 4.0
"""Seconds at the end in which nothing is to learn: what there is is packed."""
GRACE = 0.4
"""The share of them for which something may still learn that was slow to begin."""
STARTUP_S = 40.0
"""Seconds that a stage that learns takes before its own clock begins: imports, reading, talking to the others."""
SMALL_LEARNS_S = 6.0
"""Seconds for which a rehearsal learns."""
SHARED_SPEECH, SPEECH = 0.15, 0.5
"""The share of the time after which Kokoro is silent: on a GPU that learns as well, where beside it a step takes twice
to three times as long, and on others. What comes late is hardly learned."""
KOKORO_PROCESSES, KOKORO_CALLERS = 4, 3
"""Processes a GPU that speak agents' lines, and callers': more of them only wait for each other."""
ENCODERS, SHARED_ENCODERS = 3, 1
"""Processes that go on encoding on each GPU that does, and where one GPU, or none, does it all: each is bound by the
core on which it composes, and takes a GPU's time from what learns on it. 80 GB do not hold seven, with those that
encode single lines."""
LINES, LINES_S = 2, 75.0
"""Processes that encode single lines on each GPU that is to learn, and for how many seconds when all have spoken. One
more stays on each GPU that encodes, and another joins it when Kokoro is silent. An hour of callers takes
one of them 4 s, and 18 s beside Kokoro."""
CODED_HOURS = 25.0
"""So much of callers' speech has codes before anything is mixed: of less, conversations would be of the same lines."""
MIXERS = 6
"""Processes that mix, for each GPU that learns, on a third of the cores at most: it takes a mixed bank every 3.4 s, and
a process makes one in 11 s, or 21 to 29 s among many."""
ROBOTS, ROBOT_CALLERS = 60, 160
"""Shards of robots' lines, with 32 personas each, and of espeak-ng's callers for each GPU: an hour and 172 MB each. A
line that is heard again and again is known by heart."""
LEAST_FREE, SMALL_LEAST_FREE = 16e9, 0.0
"""Bytes that speech leaves free on the disk, for banks and weights: an hour takes 172 MB, and what cannot be written
is lost."""
MOST_ROBOT_CALLERS = 400
"""So many of them and no more, however many GPUs: callers speak by other teachers in seven of ten calls."""
FLITE_CALLERS, RHVOICE_CALLERS, PICO_CALLERS = 144, 280, 80
"""Shards of the callers of synthesizers with recorded voices: half an hour each, RHVoice's a quarter."""
GPU_SHARDS = 1000
"""Shards of Kokoro are numbered from so many a GPU on, and banks of each process that encodes."""
BANKS, LONG_EVERY = 8, 4
"""The banks that each learning GPU encodes at first; every so manieth of any process is of long conversations."""
SMALL_BANKS = ("--positions", "448", "--count", "6", "--small")
"""A rehearsal's banks."""

Need = Literal["", "speech", "codes", "banks"]


class Request(msgspec.Struct, frozen=True):
    """What is to be made: everything that `make` was told.

    It is to take so many `seconds` from when it `began`, a time of time.monotonic(), which all processes share.
    `first_speech` is the seconds in which all GPUs speak, `enough` the number of banks with which the language model
    begins, `packed_every` the seconds between two packings into the folder `into`. `flite` is the folder of its
    libraries, "" the system's, None for no flite; `rhvoice` RHVoice's folder, None for no RHVoice; `voices` the
    folder of Kokoro's voices, None for no callers of its.
    `goes_on` says that the decoder has weights to go on from. `steps` is how many the language model has made before,
    on other speech than what is now to be spoken. `small` is the rehearsal of it all, with everything as small as can
    be.
    """

    seconds: float
    into: str
    began: float
    first_speech: float = 80.0
    enough: int = 4
    packed_every: float = 100.0
    flite: str | None = None
    rhvoice: str | None = None
    voices: str | None = None
    kokoro: bool = True
    pico: bool = True
    decoder: bool = True
    goes_on: bool = False
    steps: int = 0
    small: bool = False

    @property
    def first_number(self) -> int:
        """The number of the first shard of each teacher, and of the first bank."""
        return self.steps * NUMBERS_A_RUN

    @property
    def end(self) -> float:
        """The second at which everything is to have stopped but the packing."""
        return self.seconds - self._reserve

    @property
    def latest(self) -> float:
        """The second at which what still learns is killed."""
        return self.end + GRACE * self._reserve

    @property
    def least_free(self) -> float:
        """Bytes on the disk below which nobody speaks any more."""
        return SMALL_LEAST_FREE if self.small else LEAST_FREE

    @property
    def _reserve(self) -> float:
        return SMALL_RESERVE_S if self.small else RESERVE_S

    def minutes(self, now: float) -> float:
        """For how long something may learn that begins at the second `now`; not above 0 if there is no time left."""
        left = self.end - now
        return min(SMALL_LEARNS_S, left) / 60 if self.small else (left - STARTUP_S) / 60

    def rehearsed(self) -> "Request":
        """The same at the smallest, on the CPU alone."""
        return msgspec.structs.replace(
            self,
            small=True,
            first_speech=0.0,
            enough=2,
            packed_every=5.0,
            kokoro=False,
            pico=False,
            flite=None,
            rhvoice=None,
            voices=None,
        )


@dataclass(frozen=True)
class Machine:
    """What there is: GPUs by their names in CUDA_VISIBLE_DEVICES, none on a machine without, and cores."""

    gpus: tuple[str, ...]
    cores: int


@dataclass(frozen=True)
class Job:
    """A stage to start: `python -m training` with these arguments, on these GPUs.

    It begins at the second `begins`, when there is what it `needs`, and is killed at the second `ends`. One that
    `learns` is told by `--minutes` how long it may take, and runs as one process for each of its `ranks`. It may
    make what others need. One that `gives_way` is nice: where cores are scarce,
    the others have them first.
    """

    name: str
    arguments: tuple[str, ...]
    gpus: tuple[str, ...]
    begins: float
    ends: float
    needs: Need = ""
    learns: bool = False
    makes: Need = ""
    ranks: int = 1
    threads: int = 1
    gives_way: bool = False


@dataclass(frozen=True)
class Roles:
    """The GPUs on which the language model learns, those that go on speaking and encoding, and the decoder's, if it
    learns, which encodes as well."""

    learners: tuple[str, ...]
    encoders: tuple[str, ...]
    decoder: tuple[str, ...]


def roles(gpus: tuple[str, ...], decoder: bool = True) -> Roles:
    """Two thirds of the GPUs learn the language model; the last learns the decoder, alone if there are four or more."""
    learners = gpus[: max(1, 2 * len(gpus) // 3)]
    helpers = gpus[len(learners) :] or learners
    if not decoder:
        return Roles(learners, helpers, ())
    return Roles(learners, helpers[:-1] or helpers, helpers[-1:])


def encoding(parts: Roles) -> list[str]:
    """The GPUs that go on encoding, in order, each once."""
    return list(dict.fromkeys((*parts.encoders, *parts.decoder)))


def plan(machine: Machine, request: Request) -> tuple[Job, ...]:
    """All jobs, in the order in which they begin."""
    return (
        *_speech(machine, request),
        *_encoding(machine, request),
        *_mixing(machine, request),
        *_learning(machine, request),
    )


def _speech(machine: Machine, request: Request) -> list[Job]:
    """Robots and recorded voices on the cores, Kokoro on all GPUs, and on some of them for longer."""
    end, cores = request.end, machine.cores
    small = request.small
    robots = min(MOST_ROBOT_CALLERS, ROBOT_CALLERS * max(1, len(machine.gpus)))

    def job(teacher: str, shards: tuple[int, int], workers: int, ends: float, gpu: tuple[str, ...] = ()) -> Job:
        arguments = ["speech", "--teacher", teacher, "--shards", *numbers(request, shards)]
        arguments += ["--workers", str(max(1, workers))]
        if small:
            arguments += ["--count", "2" if teacher in ("kokoro", "espeak") else "40"]
        if teacher == "callers-flite" and request.flite:
            arguments += ["--flite", request.flite]
        if teacher == "callers-rhvoice" and request.rhvoice:
            arguments += ["--rhvoice", request.rhvoice]
        if teacher == "callers-kokoro" and request.voices:
            arguments += ["--voices", request.voices]
        name = f"speech-{teacher}" + "".join(f"-{number}" for number in gpu)
        # A GPU must not wait for a core on which a robot speaks.
        return Job(
            name, tuple(arguments), gpu, 0.0, ends, makes="speech", gives_way=not gpu and "kokoro" not in teacher
        )

    jobs = [
        job("callers-espeak", (0, 1 if small else robots), cores // 3, end),
        job("espeak", (0, 1 if small else ROBOTS), cores // 4, end),
    ]
    if request.flite is not None:
        jobs.append(job("callers-flite", (0, FLITE_CALLERS), cores // 8, end))
    if request.rhvoice is not None:
        jobs.append(job("callers-rhvoice", (0, RHVOICE_CALLERS), cores // 5, end))
    if request.pico:
        jobs.append(job("callers-pico", (0, PICO_CALLERS), cores // 12, end))
    if request.kokoro:
        parts = roles(machine.gpus, request.decoder)
        longer = speech_ends(machine, request)
        # Whole shards alone count, and the first hold the personas that everybody meets: where there is time for them.
        for place, gpu in enumerate(dict.fromkeys((*parts.encoders, *machine.gpus))):
            ends = min(end, longer if gpu in parts.encoders else request.first_speech)
            shards = place * GPU_SHARDS, place * GPU_SHARDS + GPU_SHARDS
            jobs.append(job("kokoro", shards, KOKORO_PROCESSES, ends, (gpu,)))
            if request.voices is not None:
                jobs.append(job("callers-kokoro", shards, KOKORO_CALLERS, ends, (gpu,)))
        if not machine.gpus:
            jobs.append(job("kokoro", (0, 1 if small else GPU_SHARDS), cores // 2, min(end, longer)))
    return jobs


def _encoding(machine: Machine, request: Request) -> list[Job]:
    """A few banks on each GPU that learns, so that it can begin, and as many as there is time for on the others."""
    parts = roles(machine.gpus, request.decoder)
    # Where one GPU does it all, the processes that go on are also those that begin.
    firsts = [gpu for gpu in parts.learners if gpu not in parts.encoders]
    others = encoding(parts) or [""]
    places = [(gpu, BANKS) for gpu in firsts]
    each = ENCODERS if len(machine.gpus) > 1 else SHARED_ENCODERS
    places += [(gpu, GPU_SHARDS) for _ in range(each) for gpu in others]
    return [
        Job(
            f"encode-{number}",
            (
                *("encode", "--banks", *numbers(request, banks_of(number, 1 if request.small else count))),
                *bank_options(request),
            ),
            (gpu,) if gpu else (),
            request.first_speech,
            request.end,
            needs="speech",
            makes="banks",
            threads=threads_of(machine),
        )
        for number, (gpu, count) in enumerate(places)
    ]


def _mixing(machine: Machine, request: Request) -> list[Job]:
    """Processes on the GPUs that encode, and for a while on those that learn, give lines codes; others, without a GPU,
    lay conversations of them."""
    begins, end, threads = request.first_speech, request.end, threads_of(machine)
    parts = roles(machine.gpus, request.decoder)
    arguments = ("encode", "--lines", "--follow") + (("--small",) if request.small else ())
    places: list[tuple[tuple[str, ...], float, float]] = [((gpu,), begins, end) for gpu in encoding(parts)]
    places = places or [((), begins, end)]
    places += [((gpu,), speech_ends(machine, request), end) for gpu in parts.encoders if gpu not in parts.learners]
    learners = [gpu for gpu in parts.learners if gpu not in parts.encoders]
    places += [((gpu,), begins, min(end, begins + LINES_S)) for gpu in learners for _ in range(LINES)]
    jobs = [
        Job(f"lines-{number}", arguments, gpus, begin, ends, needs="speech", makes="codes", threads=threads)
        for number, (gpus, begin, ends) in enumerate(places)
    ]
    mixers = 1 if request.small else max(1, min(machine.cores // 3, MIXERS * len(parts.learners)))
    for number in range(mixers):
        banks = banks_of(number, 1 if request.small else GPU_SHARDS)
        arguments = ("mix", "--banks", *numbers(request, banks), *bank_options(request))
        jobs.append(Job(f"mix-{number}", arguments, (), begins, end, needs="codes", makes="banks"))
    return jobs


def bank_options(request: Request) -> tuple[str, ...]:
    """What banks are of."""
    return SMALL_BANKS if request.small else ("--long", str(LONG_EVERY))


def speech_ends(machine: Machine, request: Request) -> float:
    """The second after which Kokoro is silent."""
    shared = SHARED_SPEECH if len(machine.gpus) == 1 else SPEECH
    return max(request.first_speech, shared * request.seconds)


def banks_of(process: int, count: int) -> tuple[int, int]:
    """The first of a process's banks, and the one after the last."""
    return process * GPU_SHARDS, process * GPU_SHARDS + count


def numbers(request: Request, span: tuple[int, int]) -> list[str]:
    """The first number of some shards or banks of this run, and the one after the last, as arguments."""
    return [str(request.first_number + number) for number in span]


def threads_of(machine: Machine) -> int:
    """Threads of a process that encodes or learns, of which there are about four a GPU, with 16 cores."""
    return max(1, min(4, machine.cores // 4))


def _learning(machine: Machine, request: Request) -> list[Job]:
    """The language model, and the decoder of the codec."""
    parts = roles(machine.gpus, request.decoder)
    begins, end, threads = request.first_speech, request.latest, threads_of(machine)
    lm = ("lm", "--rate", "1e-3") + (("--small",) if request.small else ())
    ranks = 2 if request.small else max(1, len(parts.learners))
    jobs = [Job("lm", lm, parts.learners, begins, end, needs="banks", learns=True, ranks=ranks, threads=threads)]
    if request.decoder:
        gently = ("--batch", "16", "--rate", "3e-4") if request.goes_on else ()
        codec = ("codec", *gently) + (("--small",) if request.small else ())
        jobs.append(Job("codec", codec, parts.decoder, begins, end, needs="speech", learns=True, threads=threads))
    return jobs


def is_there(need: Need, folder: Path, request: Request) -> bool:
    """Whether a training folder has what a job needs."""
    if need == "speech":
        kinds = {is_of_callers(path) for path in (folder / "speech").glob("*.json")}
        return kinds == {True, False}
    if need == "codes":
        coded = [path for path in (folder / "speech").glob("*.json") if codes_of(path).exists()]
        callers = [path for path in coded if is_of_callers(path)]
        enough = bool(callers) if request.small else sum(map(hours_in, callers)) >= CODED_HOURS
        beside = all((folder / name).exists() for name in ("special.json", "ambience.npy"))
        return enough and len(callers) < len(coded) and beside
    if need == "banks":
        return len(list((folder / "banks").glob("*.pt"))) >= request.enough
    return True
