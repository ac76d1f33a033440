"""The online part: a gRPC server that loads a bundle and serves steered recommendations."""
