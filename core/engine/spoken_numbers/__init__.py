"""Numbers in a text as one says them, for models that were trained on prompts without digits."""

from core.engine.spoken_numbers.number_words import number_in_words
from core.engine.spoken_numbers.spelling import spell_numbers

__all__ = ["number_in_words", "spell_numbers"]
