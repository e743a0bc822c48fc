"""Messages to tokens: chat templates with completion masks, and the layout of a batch of trees."""
