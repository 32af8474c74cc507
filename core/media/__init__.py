"""Sound and voices as files and streams: Opus, Ogg, FLAC, WAV, and voices read from them."""
