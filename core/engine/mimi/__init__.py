"""The Mimi codec: audio to codes and back, for all slots at once."""
