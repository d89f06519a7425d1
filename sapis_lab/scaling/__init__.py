"""A campaign that scales a model by itself: its session, history and designs, and synthetic worlds to try
policies in (`sapis_lab.policies`)."""
