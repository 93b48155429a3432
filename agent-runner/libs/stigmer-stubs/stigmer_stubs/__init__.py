"""stigmer's wire contract, in one place: messages, methods, names.

The modules `*_pb2` are generated from `proto/` by `generate.sh`; what they hold are facts of a
server and of workflows that live elsewhere: changing one here changes nothing there, it only
breaks the conversation.
"""
