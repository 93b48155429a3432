"""A stigmer-server for development and tests, with a model that needs no key.

It speaks the contract's gRPC services from memory, hosts the workflow that calls the runner's
activities, and serves a scripted model. `python -m devserver` starts it; none of it is in the
image. It is no stigmer-server: nothing is kept, nobody is kept out.
"""
