"""The page (Gradio). Not here yet."""
