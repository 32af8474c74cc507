"""Sound and voices as files and streams: Opus, Ogg, FLAC, WAV, and the voices that come of them."""
