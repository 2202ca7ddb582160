"""`python -m server.stages NAME`: one process of the server. The supervisor starts it; NAME is for `ps` to show."""

from server.process import main

if __name__ == "__main__":
    main()
