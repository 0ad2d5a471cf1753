"""Words and names that mean the same, may be the same, or look alike and are not; kept by hand, by subject.

Words with another common meaning in short answers are left out, such as "mobile" or "apartment" / "flat". WordNet is
30 MB, and its synonyms hold for some sense of a word, seldom for the one that is meant.
"""

from collections.abc import Mapping, Sequence

from parityalign.stages._near_words import singular

Words = tuple[str, ...]

# The first of a line stands for the others.
_SAME = """
    bike = bicycle
    riding bike = bike riding, bicycling, cycling, biking
    motorcycle = motorbike, motor bike, motor cycle
    plane = airplane, aeroplane, aircraft
    car = automobile
    truck = lorry
    taxi = cab, taxicab
    fire truck = fire engine
    subway = metro
    trolley = tram, streetcar
    rail = track
    chevrolet = chevy
    gas = gasoline, petrol
    gas station = petrol station, filling station
    electricity = electric, electric power
    sidewalk = pavement
    traffic light = stoplight, stop light, traffic signal
    railroad = railway
    parking lot = car park
    license = licence

    tv = television, tv set, television set, telly
    phone = telephone, cellphone, cell phone, mobile phone, smartphone, smart phone
    laptop = laptop computer
    remote = remote control, remote controller
    computer mouse = pc mouse
    photo = photograph
    fridge = refrigerator
    stove = cooker
    couch = sofa
    carpet = rug
    faucet = tap
    elevator = lift
    trash = rubbish, garbage
    trash can = garbage can, rubbish bin, trash bin, garbage bin, dustbin, waste bin
    flashlight = torch
    stroller = pram, baby carriage
    suitcase = luggage case
    purse = handbag
    backpack = rucksack
    wallet = billfold
    fire hydrant = hydrant
    bathroom = restroom, washroom
    closet = wardrobe
    drugstore = pharmacy, chemist
    store = shop
    grocery store = supermarket
    bakery = bread store
    florist = flower store
    mailbox = mail box, post box, postbox, letterbox
    crosswalk = zebra crossing, pedestrian crossing
    cabinet = cupboard
    curtain = drape
    bookshelf = bookcase
    napkin = serviette
    pan = skillet, frying pan
    microwave = microwave oven
    headphone = headset, earphone
    internet = web
    bookstore = book store, bookshop, book shop
    movie = film
    movie theater = cinema

    pant = trouser
    glasses = eyeglasses, spectacles, pair of glasses
    sunglasses = pair of sunglasses
    sweater = jumper, pullover
    sneaker = tennis shoe
    pajama = pyjama
    mustache = moustache
    jewelry = jewellery
    tie = necktie
    clothes = clothing, apparel
    xl = extra large, x large
    xxl = extra extra large
    plaid = checkered, checked, chequered
    stripe = striped
    polka dot = polka dotted

    donut = doughnut
    hamburger = burger
    fries = french fries
    coke = coca cola, cocacola
    pepsi = pepsi cola
    yogurt = yoghurt
    ketchup = catsup
    soda = soft drink, soda pop
    shrimp = prawn
    scallion = green onion, spring onion
    macaroni and cheese = mac and cheese, macaroni cheese
    fiber = fibre
    eggplant = aubergine
    zucchini = courgette
    cilantro = coriander
    vegetarian = veggie
    barbecue = bbq, barbeque
    ipa = india pale ale
    orange juice = oj
    corn = maize
    dinner = supper
    marijuana = cannabis

    child = kid
    baby = infant
    mom = mother, mum
    dad = father
    woman = lady, female
    man = male
    teenager = teen, adolescent
    policeman = police officer, cop, police
    chef = cook
    boomer = baby boomer
    waiter = server
    student = pupil
    senior = elderly
    hispanic = latino
    black = african american
    firefighter = fireman
    mailman = postman
    goalkeeper = goalie, goaltender
    nobody = no one
    dr = doctor, drive
    mister = mr

    rabbit = bunny
    pig = hog
    cow = cattle
    seagull = gull
    cat = kitty, feline
    dog = canine
    labrador = lab
    labrador retriever = lab retriever
    german shepherd = german shepard, alsatian
    ocean = sea
    beach = seashore, sea shore, seaside, shore
    rock = stone
    forest = wood land
    rainforest = jungle, rain forest
    savanna = savannah, grassland
    dock = pier
    sunset = dusk
    sunrise = dawn
    storm = thunderstorm

    wood = wooden
    wool = woolen, woollen
    rain = rainy, raining
    snow = snowy, snowing
    sun = sunny
    wind = windy
    cloudy = overcast
    fog = foggy
    fall = autumn
    night = nighttime
    day = daytime
    noon = midday, 12 pm
    midnight = 12 am
    christmas = xmas, christmas day
    valentine = valentine day
    transportation = transport
    hydropower = hydro, hydroelectric
    daily = every day, each day, once day
    weekly = every week, each week, once week
    monthly = every month, each month, once month
    yearly = annually, annual, every year, each year
    kite flying = flying kite
    soccer = association football
    baseball = baseball game
    table tennis = ping pong
    frisbee = flying disc
    racket = racquet
    wii = nintendo wii

    big = large
    small = little
    fast = quick
    average = mean
    sad = unhappy
    angry = mad
    tired = sleepy
    scared = afraid, frightened
    modern = contemporary
    ok = okay
    and = &
    half = 1/2
    versus = vs
    yes = yeah, yep, yup
    no = nope
    gray = grey
    color = colour
    favorite = favourite
    favorable = favourable
    center = centre
    theater = theatre
    tire = tyre
    harbor = harbour
    flavor = flavour
    neighbor = neighbour
    labor = labour
    aluminum = aluminium
    catalog = catalogue
    program = programme
    organization = organisation

    january = jan
    february = feb
    march = mar
    april = apr
    june = jun
    july = jul
    august = aug
    september = sep, sept
    october = oct
    november = nov
    december = dec
    monday = mon
    tuesday = tue, tues
    wednesday = wed
    thursday = thu, thur, thurs
    friday = fri
    saturday = sat

    st = street, saint
    avenue = ave
    boulevard = blvd
    road = rd
    lane = ln
    highway = hwy, freeway, motorway
    route = rt, rte
    volume = vol
    page = pg
    apartment = apt
    chapter = chap
    episode = ep
    edition = ed
    mount = mt
    company = co
    incorporated = inc
    limited = ltd
    corporation = corp
    volkswagen = vw
    mercedes = mercedes benz
    democrat = dem, democratic party
    republican = rep, gop, republican party

    usa = united states of america, united states
    uk = united kingdom, great britain, britain, british
    nyc = new york city, new york
    la = los angeles
    uae = united arab emirates
    drc = democratic republic of congo, democratic republic of the congo, dr congo
    south korea = republic of korea, korea republic
    north korea = democratic people republic of korea
    czechia = czech republic
    russia = russian federation, russian
    ivory coast = cote divoire
    iran = islamic republic of iran
    syria = syrian arab republic
    laos = lao pdr
    vietnam = viet nam, vietnamese
    myanmar = burma
    eswatini = swaziland
    turkey = turkiye
    cape verde = cabo verde
    east timor = timor leste
    saudi arabia = saudi
    hong kong = hong kong sar
    bosnia = bosnia and herzegovina, bosnia herzegovina
    macedonia = north macedonia
    germany = deutschland, german
    munich = munchen
    cologne = koln
    vienna = wien
    rome = roma
    florence = firenze
    venice = venezia
    milan = milano
    naples = napoli
    prague = praha
    lisbon = lisboa
    copenhagen = kobenhavn
    geneva = geneve
    brussels = bruxelles
    spain = espana, spanish
    italy = italia, italian
    france = french
    greece = greek
    netherlands = dutch
    switzerland = swiss
    sweden = swedish
    norway = norwegian
    denmark = danish
    finland = finnish
    ireland = irish
    scotland = scottish
    portugal = portuguese
    austria = austrian
    belgium = belgian
    japan = japanese
    china = chinese, mainland china, china mainland
    india = indian
    thailand = thai
    mexico = mexican
    canada = canadian
    brazil = brasil, brazilian
    egypt = egyptian
    australia = australian
    africa = african
    asia = asian
    europe = european
    buddhism = buddhist
    christianity = christian
    islam = muslim
    hinduism = hindu
    judaism = jewish
"""

# Only where they are the whole answer: within one, `us` may be a pronoun, and `n` a letter.
_SAME_WHOLE = """
    usa = us, america
    0 = none
    independence day = 4 of july
    north = n
    south = s
    east = e
    west = w
    arizona = az
    california = ca
    connecticut = ct
    florida = fl
    illinois = il
    kansas = ks
    kentucky = ky
    maryland = md
    massachusetts = ma
    pennsylvania = pa
    georgia = ga
    alabama = al
    iowa = ia
    nebraska = ne
    new hampshire = nh
    north dakota = nd
    south dakota = sd
    montana = mt
    mississippi = ms
    wyoming = wy
    rhode island = ri
    alaska = ak
    arkansas = ar
    michigan = mi
    minnesota = mn
    missouri = mo
    nevada = nv
    new jersey = nj
    new mexico = nm
    north carolina = nc
    south carolina = sc
    tennessee = tn
    texas = tx
    utah = ut
    vermont = vt
    virginia = va
    washington = wa
    wisconsin = wi
    yes = true, correct
    no = false, incorrect
"""

# The first of a line is the name of a kind, or near to each of the others: whoever says the one may mean the other.
_MAY_BE_SAME = """
    dog = retriever, labrador, poodle, bulldog, beagle, terrier, shepherd, collie, husky, dachshund, puppy, hound, pug
    cat = kitten, tabby, siamese, persian
    cow = bull, ox, calf, steer
    horse = pony, foal, colt, mare, stallion
    foal = colt
    sheep = lamb, ram
    goat = kid
    chicken = hen, rooster
    pig = piglet, boar
    duck = duckling, mallard
    monkey = ape, baboon, chimpanzee
    parrot = macaw, cockatoo, parakeet
    bird = eagle, hawk, owl, parrot, seagull, duck, pigeon, swan, crow, robin, sparrow
    bear = grizzly
    fish = salmon, tuna, trout, goldfish
    snake = python, cobra
    plane = jet, airliner, boeing
    truck = pickup, semi, van
    van = minivan, minibus
    bus = coach
    car = sedan, suv, convertible, hatchback
    boat = ship, sailboat, yacht, ferry, canoe, kayak
    train = locomotive, tram
    football = soccer
    bread = toast, baguette, bun, roll
    orange = tangerine, mandarin, clementine
    banana = plantain
    cake = cupcake, cheesecake
    pepper = capsicum
    meat = beef, pork, steak, ham
    pasta = spaghetti, noodle, macaroni
    beer = ale, lager, ipa
    wine = champagne, chardonnay, merlot
    soda = coke, pepsi, sprite
    coffee = latte, cappuccino, espresso
    cup = mug
    plate = dish
    umbrella = parasol
    chair = armchair, seat, stool, recliner
    couch = loveseat, futon
    table = desk
    stove = oven
    lamp = light
    hat = cap, beanie, fedora
    helmet = hard hat
    coat = jacket
    shoe = boot, sneaker, sandal
    shirt = blouse, jersey
    metal = steel, iron, aluminum, brass
    stone = granite, marble, brick
    rock = granite, marble
    tree = palm, pine, oak, maple
    flower = rose, tulip, daisy, lily, sunflower
    church = cathedral, chapel
    road = st, highway
    purple = violet, lavender
    blue = navy, teal, turquoise
    dark blue = navy, navy blue
    red = maroon, crimson
    brown = tan, beige
    yellow = gold
    steam = coal
    soup = stew, chowder
    passenger = commercial
    cola = coke, pepsi
    congo = drc, republic of congo, republic of the congo
    wedding = marriage
    person = man, woman, child
    child = boy, girl, baby
    man = boy
    woman = girl
    evening = night, sunset
    morning = sunrise
    swing = hit, bat
    uk = england, scotland
    scooter = moped
    luggage = suitcase, bag, baggage
    berry = blueberry, raspberry, blackberry, strawberry
    soldier = military, army
    clock = big ben, clock tower
    big ben = clock tower
    video game = wii, nintendo, xbox, playstation
    pan = pot
    teapot = kettle
    vase = pot
    fence = railing
    hill = mountain
    river = stream, creek
    lake = pond
    path = trail
    field = pasture, meadow
    farm = ranch
    airport = runway
    city = town, urban, downtown
    child = toddler
    hot = warm
    cold = cool, chilly
    old = vintage, antique
    blanket = bedspread, comforter
    pillow = cushion
    beak = bill
    horn = antler
    hair = fur
    hay = straw
    revenue = sale, income
    total = sum, overall, all
    conductor = engineer
    tree = birch, cedar, willow
    juice = orange juice, apple juice
    sandwich = burger, sub
    dessert = cake, pie, ice cream
    fruit = apple, banana, orange, berry, strawberry, pear, grape
    vegetable = broccoli, carrot, lettuce, pepper, tomato
    toy = teddy bear, doll
    game = video game, baseball, tennis
    glasses = sunglasses
"""

# Names that hold another one and mean something else.
_ANOTHER_THAN_ITS_PART = """
    table tennis, teddy bear, hot dog, prairie dog, sea lion, sea horse, guinea pig, sweet potato, french toast,
    fire extinguisher, parking meter, parking lot, water melon, board game, computer mouse, pan cake,
    root beer, ginger ale, cotton candy, peanut butter, ice cream, egg plant, star fish, jelly fish, butter fly,
    equatorial guinea, papua new guinea, south sudan, northern ireland, dominican republic,
    west virginia, new jersey, new mexico, new england, new south wales, american samoa, inner mongolia,
    financial times
"""
_ANOTHER_THAN_ITS_BEGINNING = "tractor trailer, guinea bissau, washington dc, washington post, new york times, dominican republic"
_ONE_BEGINS_THE_OTHER = (
    "niger nigeria, dominica dominican, cook cookie, corn corner, star start, bear beard, plan plant, cart carton"
)


def _groups(table: str) -> dict[Words, tuple[Words, ...]]:
    found: dict[Words, tuple[Words, ...]] = {}
    for name, others in (line.split(" = ") for line in table.strip().splitlines() if line.strip()):
        key = _singular(name)
        found[key] = (*found.get(key, ()), *map(_singular, others.split(", ")))
    return found


def _singular(name: str) -> Words:
    return tuple(singular(word) for word in name.split())


def _renamed(table: str) -> dict[Words, Words]:
    return {other: name for name, others in _groups(table).items() for other in others}


SAME: Mapping[Words, Words] = _renamed(_SAME)
"""From a name to the one that stands for it, both in the singular."""
SAME_WHOLE: Mapping[Words, Words] = _renamed(_SAME_WHOLE)
"""The same for whole answers only."""
_LONGEST = max(map(len, SAME))


def with_one_name(found: Sequence[str]) -> Words:
    """Words in the singular, and of several that mean the same always the same one."""
    named: list[str] = []
    place = 0
    while place < len(found):
        for length in range(min(_LONGEST, len(found) - place), 0, -1):
            if name := SAME.get(tuple(found[place : place + length])):
                named += name
                break
        else:
            length = 1
            named.append(found[place])
        place += length
    return SAME_WHOLE.get(tuple(named), tuple(named))


def _names(listed: str) -> frozenset[Words]:
    return frozenset(with_one_name(_singular(name)) for name in listed.strip().split(","))


_REGION_NAMES = """
    england, scotland, wales, ireland, uk, france, germany, italy, spain, portugal, netherlands, belgium, switzerland,
    austria, poland, greece, turkey, sweden, norway, denmark, finland, russia, ukraine, usa, canada, mexico, brazil,
    argentina, chile, peru, colombia, cuba, japan, china, south korea, india, thailand, vietnam, indonesia, malaysia,
    singapore, philippines, australia, new zealand, egypt, morocco, kenya, nigeria, south africa, israel, iran, iraq,
    alabama, alaska, arizona, arkansas, california, colorado, connecticut, delaware, florida, georgia, hawaii, idaho,
    illinois, indiana, iowa, kansas, kentucky, louisiana, maine, maryland, massachusetts, michigan, minnesota,
    mississippi, missouri, montana, nebraska, nevada, new hampshire, new jersey, new mexico, new york, north carolina,
    north dakota, ohio, oklahoma, oregon, pennsylvania, rhode island, south carolina, south dakota, tennessee, texas,
    utah, vermont, virginia, washington, west virginia, wisconsin, wyoming, ontario, quebec, europe, asia, africa
"""
"""Countries and states that are said behind the name of a city."""
_KINDS = {
    with_one_name(kind): tuple(map(with_one_name, others)) for kind, others in _groups(_MAY_BE_SAME).items()
}
_COMPOUNDS = _names(_ANOTHER_THAN_ITS_PART)
_EXTENDED = _names(_ANOTHER_THAN_ITS_BEGINNING)
_REGIONS = _names(_REGION_NAMES)
_PREFIXED = frozenset(frozenset(pair.split()) for pair in _ONE_BEGINS_THE_OTHER.split(", "))


def is_region(name: Words) -> bool:
    """Whether a name is that of a country or state that is often said behind a city's."""
    return name in _REGIONS


def may_be_same(one: Words, other: Words) -> bool:
    """Whether one answer names the kind that the other is of, as `dog` and `golden retriever`."""
    return _is_kind_of(one, other) or _is_kind_of(other, one)


def is_another(one: Words, other: Words) -> bool:
    """Whether one name holds or begins the other and yet means something else, as `tennis` and `table tennis`."""
    short, long = sorted((one, other), key=len)
    if len(short) == len(long) == 1:
        return frozenset((*short, *long)) in _PREFIXED
    behind, before = long[-len(short) :] == short, long[: len(short)] == short
    return len(short) < len(long) and (behind and long in _COMPOUNDS or before and long in _EXTENDED)


def _is_kind_of(kind: Words, name: Words) -> bool:
    return any(name[-len(each) :] == each for each in _KINDS.get(kind, ()))
