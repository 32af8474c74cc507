"""What `modal_app.py` is made of: its choices and prices, and the parts that run in its two functions on Modal.

`choices` and `prices` need Python alone, since they run where `modal deploy` is typed. Everything else runs in the
containers, where the service is installed.
"""
