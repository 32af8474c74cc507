"""The engine: tensors, frames and slots. It knows nothing of sockets, users or plugins.

Sessions use `call` (Engine, Call), `prompt` (Prompt, Voice) and `sampling` (Sampling);
`core.boot.local_engine.open_engine` starts an engine.
"""
