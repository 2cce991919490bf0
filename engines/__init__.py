"""Models that can be stepped; an engine never knows what strategy it serves."""
