"""The names and numbers of stigmer's wire contract, in one place.

They are facts of a server and of workflows that live elsewhere: changing one here changes
nothing there, it only breaks the conversation.
"""
