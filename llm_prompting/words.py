"""The words that the grammar knows by heart. Any other word may be a noun."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


COLORS = _words("""
    red orange yellow green blue purple pink brown black white gray grey violet cyan magenta teal
    turquoise maroon navy beige gold golden silver crimson scarlet lime indigo lavender tan cream
    ivory olive mint lilac amber coral peach rainbow colorful colourful multicolored
""")

SIZES = {
    "tiny": 0.45, "small": 0.62, "little": 0.62, "mini": 0.45, "miniature": 0.45, "short": 0.75,
    "medium": 0.85, "medium-sized": 0.85, "big": 1.1, "large": 1.1, "tall": 1.1, "long": 1.1,
    "huge": 1.25, "giant": 1.25, "enormous": 1.25, "gigantic": 1.25, "massive": 1.25,
}  # fmt: skip
DEFAULT_SIZE = 0.9

LOOKS = _words("""
    fluffy furry hairy smooth rough shiny glossy matte soft hard wet dry old new young ancient
    modern vintage antique rusty dusty dirty clean broken cracked cute pretty beautiful ugly happy
    sad angry sleepy smiling funny scary friendly wild fat thin slim round square oval flat fresh
    ripe rotten hot cold frozen melting burning glowing bright dark light pale deep vivid neon
    transparent translucent striped stripy spotted dotted checkered plaid plain patterned wooden
    metal metallic plastic glass ceramic leather stone marble concrete paper cardboard crystal
    fabric woolen velvet silk steel copper bronze rubber clay porcelain bamboo brick knitted
    origami toy cartoon realistic lovely majestic elegant fancy simple lazy quick brave adorable
    magical mystical futuristic steampunk cyberpunk medieval baby sliced cooked open closed empty
    full lonely single sparkling sunny colored coloured very really extremely super slightly
    natural brightly tabby siamese floating flying sleeping running sitting jumping blooming
    pixelated hand-drawn shaggy muddy snowy mossy steaming tasty delicious juicy
    watercolor watercolour pastel
""")
INTENSIFIERS = _words("""
    bright dark light pale deep vivid very really extremely slightly
""")

NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "both": 2,
}  # fmt: skip
PAIRS = {("a", "pair", "of"): 2, ("a", "couple", "of"): 2, ("a", "dozen"): 12}
VAGUE = (
    ("a", "lot", "of"), ("lots", "of"), ("a", "few"), ("a", "bunch", "of"), ("a", "group", "of"),
    ("plenty", "of"), ("several",), ("many",), ("some",), ("few",), ("numerous",), ("various",),
)  # fmt: skip
DETERMINERS = _words("""
    a an the another this that these those my your his her its our their each every
""")

# Words that look like modifiers and are half of a name.
COMPOUNDS = frozenset(
    _names("""
    hot dog, potted plant, teddy bear, ice cream, orange juice, dining table, parking
    meter, wine glass, traffic light, fire hydrant, cell phone, baseball bat, stop sign, light
    bulb, gold fish, paper plane, hot
    air balloon, running shoe, swimming pool, flying saucer, sleeping bag, washing machine, full
    moon, crystal ball, rubber duck, christmas tree, polar
    bear, baby carriage, wedding cake, birthday cake, sewing machine, rocking chair, spinning top,
    shooting star, four leaf clover, square root, tennis racket, golden retriever, long board,
    tall ship
""")
)

# Nouns that stand alone after a comma ("apple, banana, pear"): elsewhere any word may be a noun.
NOUNS = _words("""
    airplane apple avocado ball balloon banana bear bed bee bell bench bicycle bike bird boat book
    bottle bowl boy bread bridge broccoli bus butterfly cactus cake camel candle car carrot castle
    cat chair cherry chicken child church clock cloud couch cow crab cup deer desk dinosaur dog
    dolphin donut door dragon dress drum duck eagle elephant egg fence fish flower fork fox frog
    ghost giraffe girl glass glasses goat grape guitar hammer hat helicopter hippo horse house ice
    jar key kite knife koala lamp laptop leaf lemon lion lizard lobster man mango microphone
    monkey moon motorcycle mountain mouse mug mushroom octopus orange owl oven panda parrot peach
    pear pencil penguin person phone piano pig pineapple pizza plane plant plate pumpkin rabbit
    robot rocket rose sandwich scissors shark sheep ship shirt shoe sink snail snake snowman sofa
    spider spoon squirrel star strawberry suitcase sun sunflower table taxi telephone tiger tie
    toaster toilet tomato tractor train tree truck tulip turtle tv umbrella unicorn vase violin
    volcano watch watermelon whale window wolf woman zebra circle triangle diamond cross ring
    heart cube sphere
""")

# Places that surround everything else, and so become the background.
SCENES = _words("""
    background backdrop sky forest woods jungle park garden field meadow grass lawn beach sea
    ocean lake river water desert mountains hills valley city street road highway room bedroom
    kitchen bathroom office studio library classroom restaurant cafe snow rain fog mist space
    galaxy night sunset sunrise dawn dusk noon midnight daylight day evening morning countryside
    village farm savanna stadium airport station underwater universe landscape winter summer
    autumn spring storm indoors outdoors moonlight sunlight
""")
SCENE_PREPOSITIONS = _words("""
    in on at against under over inside during by near with amid
""")

STYLES = _names("""
    watercolor, watercolour, pixel art, pencil sketch, pencil drawing, neon, oil painting, photo,
    photograph, photorealistic, cartoon, anime, manga, 3d render, line art, low poly, digital art,
    vector art, sketch, charcoal, pastel, crayon, ink, ink drawing, comic, comic book, flat
    design, isometric, impressionist, impressionism, cubist, minimalist, art deco, art nouveau,
    pop art, ukiyo-e, stained glass, mosaic, claymation, origami, papercut, paper cut, sepia,
    black and white, monochrome, natural, realistic, surreal, abstract, embroidery, graffiti,
    blueprint, chalk, watercolor painting, acrylic painting, concept art, retro, vintage, emoji,
    sticker, painting, drawing, illustration, render, pointillism, gouache, woodcut, linocut,
    halftone, voxel, voxel art, hyperrealistic, studio ghibli, cyberpunk, steampunk, vaporwave,
    synthwave
""")
MEDIA = _words("""
    photo photograph picture image painting drawing sketch illustration render rendering portrait
    scene icon cartoon depiction shot close-up closeup watercolor watercolour art collage emoji
    print poster mosaic
""")
PLAIN_MEDIA = _words("""
    picture image scene depiction shot icon
""")

DETAILS = _words("""
    shadow shadows outline outlines border borders lighting light lights glow reflection
    reflections texture textures bokeh blur contrast grain lines edges strokes brushstrokes colors
    colours highlights detail details resolution focus vignette shading frame
""")

FINITE_VERBS = _words("""
    sits stands lies jumps runs walks eats plays holds rides flies looks wears swims sleeps chases
    rests hangs floats sings dances reads drinks carries watches hides crosses drives waits climbs
    faces leans has have sit stand lie jump run walk eat play hold ride fly swim sleep
""")
NOUN_ENDINGS_ING = _words("""
    ring king wing string painting drawing ceiling earring swing building clothing wedding parking
    dining swimming washing sewing rocking spinning shooting thing spring pudding dumpling
    duckling sling sting lightning icing stocking wellington evening morning
""")

FUNCTION_WORDS = _words("""
    in on at by with of to from for over under above below beneath underneath behind beside
    besides between near inside outside atop upon against around through into onto across towards
    toward like without along alongside amid among and or but while as than if when where is are
    was were be been being it he she they we i you who which whose whom what no not there then so
    such also only just has have had do does did can could will would should may might must
    because until since during before after off out up down
""")

PLACE_WORDS = _words("""
    top bottom upper lower left right center centre middle hand side
""")

SAME_IN_PLURAL = _words("""
    sheep fish deer moose series species aircraft spacecraft scissors skis pants trousers
    sunglasses jeans shorts headphones binoculars tweezers pliers
""")

SINGULARS_IN_S = _words("""
    bus gas lens cactus octopus walrus iris canvas compass dress glass grass cross class christmas
    chess moss atlas bass boss brass press swiss citrus tennis hibiscus crocus lotus virus oasis
    basis chassis ibis this his
""")

ONLY_PLURAL = _words("""
    scissors skis pants trousers glasses sunglasses jeans shorts headphones binoculars tweezers
    pliers
""")

REQUESTS = _words("draw paint create generate make show please me us render imagine")
