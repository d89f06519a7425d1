"""One module per public data set, with its facts as `SET`."""
