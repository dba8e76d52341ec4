"""Mean and standard deviation of ImageNet's colours, with which torchvision's weights were trained."""

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
