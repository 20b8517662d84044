"""`python -m looper`: the command where its script is not on the search path."""

from looper.cli.main import main

main()
