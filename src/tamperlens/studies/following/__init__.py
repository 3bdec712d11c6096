"""Parts of `tamperlens.trajectory` and `tamperlens.Monitor`: what is watched, when, in what order."""
