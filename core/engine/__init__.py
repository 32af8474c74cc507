"""The engine: tensors, frames and slots. It knows nothing of sockets, users or plugins.

A session sees `call` (Engine, Call), `prompt` (Prompt, Voice) and `sampling` (Sampling);
`opening.open_engine` starts one.
"""
