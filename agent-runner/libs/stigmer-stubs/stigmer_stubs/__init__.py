"""The interface of stigmer-server and its workflows: messages, methods and names.

The modules `*_pb2` are generated from `proto/` by `generate.sh`. The server and the workflows are
developed elsewhere. A change here does not change them: it only breaks the communication.
"""
