"""A sound server for browsers that have no fake devices: a speaker to listen at and a microphone to speak into."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

PROGRAMS = ("pulseaudio", "pactl", "paplay", "parec")
RATE = 24_000


def missing() -> list[str]:
    """The programs that it wants and that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class SoundServer:
    """PulseAudio with a null speaker, and a null sink whose monitor is the microphone; a voice speaks into it."""

    def __init__(self, folder: Path, voice: Path) -> None:
        """Start it in a folder of its own; `voice` is a WAV that is played again and again."""
        self._socket = folder / "native"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        modules = (
            f"module-native-protocol-unix socket={self._socket} auth-anonymous=1",
            "module-null-sink sink_name=speaker rate=48000",
            "module-null-sink sink_name=mouth rate=48000",
            "module-remap-source source_name=microphone master=mouth.monitor "
            "source_properties=device.description=Microphone",
        )
        options = ("-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no")
        arguments = [argument for module in modules for argument in ("-L", module)]
        with (folder / "pulseaudio.log").open("wb") as log:
            self._server = subprocess.Popen(
                ["pulseaudio", *options, *arguments], env=self.environment, stdout=log, stderr=log
            )
        self._until_ready(folder)
        for kind, name in (("sink", "speaker"), ("source", "microphone")):
            subprocess.run(["pactl", f"set-default-{kind}", name], env=self.environment, check=True)
        self._voice = subprocess.Popen(
            ["bash", "-c", f"while paplay --device=mouth '{voice}'; do :; done"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _until_ready(self, folder: Path) -> None:
        deadline = time.monotonic() + 30
        while subprocess.run(["pactl", "info"], env=self.environment, capture_output=True, check=False).returncode:
            assert self._server.poll() is None, (folder / "pulseaudio.log").read_text()
            assert time.monotonic() < deadline, "PulseAudio does not answer"
            time.sleep(0.1)

    def hear(self, seconds: float) -> npt.NDArray[np.float32]:
        """What the speaker plays from now on, float32[n]."""
        size = int(2 * seconds * RATE)
        command = ["parec", "--device=speaker.monitor", f"--rate={RATE}", "--channels=1", "--format=s16le", "--raw"]
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE) as ear:
            assert ear.stdout is not None
            raw = ear.stdout.read(size)
            ear.kill()
        return np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)

    def loudest(self, seconds: float = 20, enough: float = 0.02) -> float:
        """RMS of the loudest 200 ms; stops listening when it is enough."""
        most = 0.0
        deadline = time.monotonic() + seconds
        while most < enough and time.monotonic() < deadline:
            heard = self.hear(2)
            pieces = heard[: len(heard) // 4800 * 4800].reshape(-1, 4800)
            most = max([most, *np.sqrt(np.mean(pieces**2, axis=1)).tolist()])
        return most

    def close(self) -> None:
        """End the voice and the server."""
        os.killpg(self._voice.pid, 15)
        self._voice.wait()
        self._server.terminate()
        self._server.wait()
