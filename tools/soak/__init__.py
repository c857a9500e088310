"""The long run: real servers killed, frozen and without power, for as long as it takes (`make soak`)."""
