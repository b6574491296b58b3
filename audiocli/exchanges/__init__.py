"""Recordings of exchanges: a directory with one JSON file for each request and its response, and the bodies beside it.

    recording.json                     what the directory is, and the version of its format
    README.txt                         what the files contain
    run-0001.json                      one command that recorded: its name, its gateways and its jobs
    0001.json                          one exchange: request, response, times, and the error if it failed
    0001.request, 0001.response        the bodies, without secrets
    log.txt                            what `--debug` prints

`recorder` writes it while requests are sent, and `replay` serves requests from it without a network. Secrets are
replaced by fillers of the same length while the files are written (`secret_remover`), so that offsets and block sizes
stay as they were.
"""
