"""The supernets and networks as a user would write them with PyTorch and PyG: the yardstick.

Nothing here is shared with the packages, so that agreement between the two means something.
"""
