"""Reading of images in a child process with limits of time, memory and rights; Linux only.

`view_reader` is the caller's side. The child begins in `start`, which sets its limits before it imports anything large,
and reads in `child`.
"""
