"""What is wrong with a bundle and how it is mended, how a document became its chunks, and what
changed between two versions.
"""
