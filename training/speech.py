"""Stage `speech`: the teachers say the agents' lines of many episodes, and callers' lines by themselves.

A shard is made by itself and named by its number, so any number of processes and machines can work on different ones,
and what was interrupted is made again.
"""

import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path

import click

from training.calling import calls
from training.episodes import Episode
from training.flite import Flite
from training.pico import Pico
from training.rhvoice import RHVoice
from training.scripts import episode, greeting_episode, shipped_episodes
from training.shards import NUMBERS_A_RUN, Said, write_shard
from training.teachers import Espeak, Kokoro, Spoken, paused
from training.voices import AGENTS, CALLERS, ESPEAK, ESPEAK_AGENTS, KOKORO, Speaker

EPISODES = {KOKORO: 6, ESPEAK: 32}
"""Episodes to a shard of agents' lines."""
WHOLE = {KOKORO: 0.45, ESPEAK: 0.4}
"""The share of episodes with all their exchanges; the others only greet and give their name."""
SHARDS_PER_PROCESS = 16
SHIPPED = len(AGENTS)
"""So many of Kokoro's first shards in each run hold the shipped personas."""


def episodes_of(teacher: str, shard: int, count: int | None = None) -> dict[str, tuple[Episode, Speaker]]:
    """A shard's `count` episodes, EPISODES of them if None, by name, and who is the agent: the same on every machine.

    Kokoro's first shards in each run hold the personas that come with the service, each in every voice.
    """
    voices = list((AGENTS if teacher == KOKORO else ESPEAK_AGENTS).values())
    chosen: dict[str, tuple[Episode, Speaker]] = {}
    if teacher == KOKORO and shard % NUMBERS_A_RUN < SHIPPED:
        for number, episode_ in enumerate(shipped_episodes(random.Random(f"shipped {shard}"))):
            chosen[f"shipped-{shard}.{number}"] = episode_, voices[(shard + number) % len(voices)]
        return chosen
    count = EPISODES[teacher] if count is None else count
    for number in range(count):
        name = f"{teacher}-{shard}.{number}"
        rng = random.Random(name)
        make = episode if rng.random() < WHOLE[teacher] else greeting_episode
        chosen[name] = make(rng), voices[(shard * count + number) % len(voices)]
    return chosen


@dataclass(frozen=True)
class Libraries:
    """The folders of synthesizers' libraries: None is the system's for flite, and none for RHVoice."""

    flite: Path | None = None
    rhvoice: Path | None = None


class _Voices:
    """The teachers of one process, each made when it first speaks."""

    def __init__(self, folder: Path, libraries: Libraries) -> None:
        self._folder, self._libraries = folder, libraries
        self._recorded: dict[str, Flite | RHVoice | Pico] = {}

    def say(self, texts: Sequence[str], speaker: Speaker) -> list[Spoken]:
        """Lines that somebody says one after the other."""
        if speaker.mix:
            return self._kokoro.say([self._espeak.read(text) for text in texts], speaker)
        if not speaker.voice:
            return [self._espeak.say(text, speaker) for text in texts]
        if speaker.teacher not in self._recorded:
            self._recorded[speaker.teacher] = self._made(speaker.teacher)
        return [self._recorded[speaker.teacher].say(text, speaker) for text in texts]

    @cached_property
    def _espeak(self) -> Espeak:
        return Espeak()

    @cached_property
    def _kokoro(self) -> Kokoro:
        import torch  # It takes seconds, which the others' processes save.

        return Kokoro(self._folder / "kokoro", torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def _made(self, teacher: str) -> Flite | RHVoice | Pico:
        """A synthesizer of recorded voices."""
        if teacher == "pico":
            return Pico(self._espeak)
        if teacher == "flite":
            return Flite(self._libraries.flite)
        if self._libraries.rhvoice is None:
            raise click.ClickException("Name the folder of RHVoice's libraries and data by --rhvoice.")
        return RHVoice(self._libraries.rhvoice)


@cache
def _voices(folder: Path, libraries: Libraries) -> _Voices:
    """A process keeps its teachers from shard to shard: Kokoro takes seconds to load."""
    return _Voices(folder, libraries)


def agents_lines(episodes: dict[str, tuple[Episode, Speaker]], voices: _Voices) -> Iterator[Said]:
    """What the agents of these episodes say."""
    for name, (chosen, agent) in episodes.items():
        texts = tuple(chosen.lines())
        for text, spoken in zip(texts, voices.say(texts, agent), strict=True):
            yield Said(f"{name}/agent", agent.name, text, spoken)


def callers_lines(teacher: str, shard: int, count: int, voices: _Voices) -> Iterator[Said]:
    """What the callers of a shard say, of a kind among CALLERS."""
    number = 0
    for speaker, said in groupby(calls(teacher.partition("-")[2], shard, count), lambda call: call.speaker):
        theirs = tuple(said)
        for call, line in zip(theirs, voices.say([call.text for call in theirs], speaker), strict=True):
            spoken = line if call.pause is None else paused(line, *call.pause)
            # Phonemes are for the codec, which does not learn from callers.
            spoken = replace(spoken, phones=())
            yield Said(f"{teacher}-{shard}.{number}/caller", speaker.name, call.text, spoken, call.wish)
            number += 1


def make_shard(
    teacher: str, folder: Path, shard: int, count: int | None = None, libraries: Libraries | None = None
) -> float:
    """Say and write one shard of `count` episodes, or callers' lines, unless it is there. Returns seconds of speech."""
    path = folder / f"{teacher}-{shard:05d}"
    if path.with_suffix(".json").exists():
        return 0.0
    voices = _voices(folder, libraries or Libraries())
    if teacher in CALLERS:
        count = CALLERS[teacher] if count is None else count
        return write_shard(path, {}, callers_lines(teacher, shard, count, voices))
    episodes = episodes_of(teacher, shard, count)
    return write_shard(path, {name: chosen for name, (chosen, _) in episodes.items()}, agents_lines(episodes, voices))


def make_speech(
    teacher: str,
    folder: Path,
    shards: range,
    workers: int,
    report: Callable[[str], None],
    libraries: Libraries | None = None,
    count: int | None = None,
    voices: Path | None = None,
) -> None:
    """Make the shards that are missing, with as many processes as `workers`; `count` and `libraries` are make_shard's.

    `voices` is a folder with more of Kokoro's voices, see `Kokoro.unpack`, without which its callers do not speak.
    """
    if teacher.endswith(KOKORO):
        Kokoro.unpack(folder / "kokoro", voices)
    hours = 0.0
    # Processes anew now and then: espeak-ng and onnxruntime take ever more memory.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=SHARDS_PER_PROCESS) as pool:
        for done, seconds in enumerate(pool.imap_unordered(_Shard(teacher, folder, libraries, count), shards), 1):
            hours += seconds / 3600
            report(f"{done} of {len(shards)} shards, {hours:.2f} hours")


@dataclass(frozen=True)
class _Shard:
    """`make_shard` with all but the number given, so that it can cross to another process."""

    teacher: str
    folder: Path
    libraries: Libraries | None
    count: int | None

    def __call__(self, shard: int) -> float:
        return make_shard(self.teacher, self.folder, shard, self.count, self.libraries)
