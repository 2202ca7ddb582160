"""What the HTTP front ends share: bodies, errors, audio formats, uploads, connections, access."""
