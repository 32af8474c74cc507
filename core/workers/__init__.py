"""The service in several processes: engines and sockets apart, one queue before all slots.

    supervisor            binds the port, starts the others and restarts them; runs the `FrontDesk`
      engine 0, 1, ...    `EngineServer`: one engine on one device
      worker 1, 2, ...    the HTTP service, over a `RemoteEngine` and a `RemoteAdmission`

They speak over Unix sockets in a private folder. A worker asks the desk for a slot; the desk opens the call on the
engine with the most free slots and says which; worker and engine then exchange the call's frames directly. The desk
closes the call when the worker leaves it, or is gone.
"""
