"""A stigmer-server for development and tests, with a model that needs no key.

It implements the contract's gRPC services in memory, runs the workflow that calls the runner's
activities, and serves a scripted model. Start it with `python -m devserver`. It is not part of the
image. It is not a replacement for stigmer-server: it stores nothing, and by default needs no key.
"""
