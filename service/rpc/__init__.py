"""The gRPC services: each method reads a message, calls the engine, writes a message."""
