"""The emoji world once per process: looks and templates that are made once serve every test."""

from scenes.judge import SceneJudge
from scenes.sprites import SpriteSheet

SHEET = SpriteSheet()
JUDGE = SceneJudge(SHEET)
