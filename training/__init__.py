"""How the smallest PersonaPlex is made: scripts, speech, codec, language model, evaluation, export."""
