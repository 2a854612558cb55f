"""Small networks that were trained until they remember, and the tasks they were trained on."""
