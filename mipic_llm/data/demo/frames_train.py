"""Hand-written sentence frames of the built-in training triplets.

Format: ``# domain`` opens a domain; an ``a`` line opens a frame (the anchor wording), two ``p``
lines say the same in other words, two ``n`` lines are close in words but differ in meaning.
Each ``-`` line is one set of slot fillers, separated by " / "; ``{1}`` in a wording is the first
filler, and so on. A line that starts with two spaces continues the line before it.
"""

FRAMES = """
# cooking
a Simmer {1} for {2} before you stir in {3}.
p Let {1} bubble gently for {2}, and only then mix {3} into the pot.
p {3} should go in last, once {1} has had {2} over a low flame.
n Simmer {1} for {2} after you stir in {3}.
n Stir in {3} first, then simmer {1} together with it for {2}.
- the lentils / twenty minutes / the spinach
- the tomato sauce / half an hour / the fresh basil
- the chicken stock / one hour / the noodles
- the coconut curry / a quarter of an hour / the prawns
a Can I swap {1} for {2} when I make {3}?
p If I have no {1} while preparing {3}, will {2} do instead?
p Would {3} still turn out fine with {2} in place of {1}?
n Can I swap {2} for {1} when I make {3}?
n Can I mix {1} with {2} when I make {3}?
- butter / olive oil / banana bread
- sour cream / plain yogurt / potato salad
- brown sugar / honey / oat cookies
- white wine / apple juice / mushroom risotto
a how long to {1}
p It takes {2} to {1}.
p You need to allow {2} if you want to {1}.
n It takes {3} to {4}.
n There is no need to {1} for {2} or any other length of time.
- hard boil an egg / about ten minutes / about four minutes / soft boil an egg
- soak dried chickpeas / eight hours or so / two hours or so / marinate chickpeas
- roast a whole chicken / close to ninety minutes / close to forty minutes / grill a chicken breast
- let pizza dough rise / an hour and a half / just twelve minutes / bake a pizza
a The {1} came out {2} because I {3}.
p I {3}, which is why my {1} ended up {2}.
p My mistake was that I {3}; that left the {1} {2}.
n The {1} came out {2} although I never {3}.
n The {1} came out perfect even though I {3}.
- sponge cake / flat and dense / forgot the baking powder
- rice / mushy / poured in too much water
- pork chops / tough / left them in the pan too long
- gravy / lumpy / added the flour all at once
a Please {1} while I {2}.
p I am going to {2}, so would you mind handling one thing: {1}?
p As I {2}, it would help me if you could {1}.
n I will {1} while you {2}.
n Please {2} while I {1}.
- peel the carrots / heat the oven
- chop the parsley / drain the pasta
- set the table / finish the sauce
- whisk the eggs / grate the cheese
a Leftover {1} will keep in {2} for {3}.
p You can store {1} that nobody finished in {2} for {3} before it spoils.
p Put the uneaten {1} in {2} and it stays good for {3}.
n Leftover {1} should never be kept in {2}, not even for {3}.
n Freshly made {1} has to rest in {2} for {3} before anyone eats it.
- vegetable stew / the fridge / three days
- bolognese sauce / the freezer / two months
- fruit pie / a cool pantry / one day
- fish soup / a sealed tub in the fridge / a day and a half
a {1} tastes much better with {2} than with {3}.
p I prefer {1} with {2}; adding {3} spoils it.
p For more flavor, I would pick {2} over {3} every time I serve {1}.
n {1} tastes much better with {3} than with {2}.
n {1} tastes exactly the same with {2} or with {3}.
- pumpkin soup / nutmeg / cinnamon
- grilled salmon / lemon and dill / a heavy cream sauce
- fried rice / sesame oil / melted butter
- hot chocolate / whole milk / skimmed milk
a My {1} never eats {2}, so I cook {3} instead.
p Since {2} is off the menu for my {1}, {3} is what I make.
p I prepare {3} because my {1} refuses {2}.
n My {1} never eats {3}, so I cook {2} instead.
n My {1} eats {2} all the time, so I rarely cook {3}.
- grandson / mushrooms / stuffed peppers
- flatmate / red meat / bean burgers
- wife / dairy / dishes with coconut milk
- sister / shellfish / baked cod
a Which {1} do you recommend for {2}?
p I am looking for advice on the right {1} if I plan on {2}.
p For {2}, what sort of {1} would you pick?
n Which {1} should I avoid for {2}?
n Do you really need {3} for {2}?
- knife / filleting a trout / a cutting board
- pan / making thin pancakes / a spatula
- kind of flour / baking rye bread / yeast
- cut of beef / a slow winter stew / red wine
a Do not {1} until {2}.
p Wait until {2}; only then should you {1}.
p It is important that {2} before you {1}.
n Make sure to {1} before {2}.
n You may {1} at any time; nobody has to wait until {2}.
- flip the omelette / the edges have set
- cut the bread / it has cooled down completely
- salt the beans / they are tender
- open the oven door / the souffle has risen
a We ran out of {1} halfway through {2}, so {3}.
p Because we had no {1} left in the middle of {2}, {3}.
p {2} was only half done when the {1} ran out, and as a result {3}.
n We had plenty of {1} left over after {2}, so {4}.
n We ran out of {1} before starting {2}, so {4}.
- gas / the barbecue / we finished the sausages indoors / we invited more friends
- icing sugar / the cake decorating / only one side got frosting / we chose a bigger cake
- jars / the jam making / the rest went into bowls / we put the whole thing off
- eggs / the Sunday brunch / the late guests got toast / we went to a cafe
a {1} needs {2}, not {3}.
p Use {2} for {1} and forget about {3}.
p When it comes to {1}, {3} will not work; {2} is what you want.
n {1} needs {3}, not {2}.
n {1} needs both {2} and {3}.
- a good stir fry / a very hot pan / a lid
- crisp roast potatoes / plenty of hot fat / foil
- a light pie crust / ice cold water / warm milk
- silky mashed potato / a gentle hand / an electric mixer
a Grandma taught me to {1} by {2}.
p It was from my grandmother that I learned the trick of {2} in order to {1}.
p I know how to {1} because Grandma showed me {2}.
n I taught Grandma to {1} by {2}.
n Grandma warned me never to {1} by {2}.
- thicken soup / adding a grated potato
- test a cake / pushing a dry noodle into the middle
- peel garlic / shaking the cloves in a jar
- rescue salty stew / dropping in a slice of raw apple
a I would like a recipe for {1} that {2}.
p Do you know a way to make {1} that {2}?
p Any version of {1} that {2} would suit me.
n I do not want a recipe for {1} that {2}.
n I would like to buy ready-made {1}; it need not be a kind that {2}.
- chocolate mousse / works without eggs
- vegetable lasagne / serves twelve people
- chicken soup / can be made in under an hour
- gluten-free bread / does not crumble
a The recipe says {1}, but I always use {2}.
p Although {1} is what the instructions call for, {2} is what I put in.
p The recipe wants {1}, which I ignore; I go for {2} each time.
n The recipe says {2}, but I always use {1}.
n I use {1}, exactly as the recipe says, and never {2}.
- two cloves of garlic / at least five
- a pinch of chili / a whole teaspoon
- dried oregano / fresh thyme
- store-bought stock / my own broth
a oven temperature for {1}
p Set the oven to {2} for {1}.
p {1} should be baked at {2}.
n {1} should be left at {3} after baking.
n Set the freezer to {3} for {1}.
- baked apples / 180 degrees / room temperature
- frozen chips / 220 degrees / minus 18 degrees
- meringues / 100 degrees, very low / four degrees
- a deep quiche / 170 degrees with the fan on / five degrees
a {1} burned the {2} while {3} was on the phone.
p The {2} got scorched as {1} chatted on the phone, not watching the stove.
p Because of a phone call, {1} let the {2} catch and turn black.
n {1} burned a hand on the {2} pot while calling for help on the phone.
n {1} saved the {2} from burning by ending the phone call early.
- Dad / milk / he
- my neighbor / onions / she
- the new cook / caramel / he
- our aunt / porridge / she
a Wash {1} under {2} and dry them {3}.
p Rinse {1} with {2}, then get rid of the moisture {3}.
p {1} need a rinse under {2}, after which they are dried {3}.
n Dry {1} {3} but never wash them under {2}.
n Wash {1} under {4} and leave them wet.
- the salad leaves / cold running water / in a spinner / hot water
- the strawberries / a gentle trickle of water / on kitchen paper / a strong jet
- the mushrooms / a quick spray / with a clean towel / soapy water
- the herbs / lukewarm water / on a rack / boiling water
a How do I stop {1} from {2}?
p Is there a trick that prevents {1} from {2}?
p My problem is {1} {2}, and I want to know how to avoid it.
n How do I get {1} to start {2}?
n Why is it good for {1} to end up {2}?
- cut apples / turning brown
- pasta / sticking together
- cheese sauce / going grainy
- cookie dough / spreading across the tray
a Tonight we are having {1} because {2}.
p {2}, so dinner this evening will be {1}.
p The reason for {1} on the table tonight is that {2}.
n Tonight we are not having {1}, although {2}.
n Last night we had {1}, even though {2}.
- leftovers / nobody had time to shop
- fish tacos / the market had fresh cod
- cold soup / it is far too hot to use the stove
- takeaway noodles / the kitchen is being painted
a {1} is cheaper to make at home than to buy.
p You save money if you prepare {1} yourself rather than getting it {2}.
p Getting {1} {2} costs more than doing it in your own kitchen.
n {1} is cheaper to buy than to make at home.
n {1} is tastier when you get it {2}, whatever it costs.
- granola / in a packet
- fresh pesto / in a jar
- pizza / from a restaurant
- iced coffee / at a cafe
a I am allergic to {1}; is there any in {2}?
p Does {2} contain {1}? I must not eat it.
p Before I try {2}, I have to know that it has no {1}, since I react badly to it.
n I love {1}; could you put more in {2}?
n I am allergic to {3}, but {1} in {2} is no problem.
- peanut / the satay dressing / wheat
- celery / this vegetable broth / mustard
- sesame / the hummus / lupin
- milk / the dark chocolate tart / egg

# travel
a Our flight to {1} was {2} because of {3}.
p Because of {3}, the plane that should have taken us to {1} was {2}.
p {3} meant that our trip by air to {1} was {2}.
n Our flight from {1} was {2} because of {3}.
n Our flight to {1} was on time despite {3}.
- Lisbon / delayed by four hours / thick fog
- the coast / cancelled / a strike
- Oslo / moved to the evening / a broken engine part
- the islands / sent to another airport / strong winds
a Is {1} included in {2}?
p Does the price of {2} cover {1} too?
p When I pay for {2}, do I get {1} without an extra charge?
n Is {2} included in {1}?
n Can I cancel {1} and keep {2}?
- breakfast / the room rate
- a checked suitcase / this ticket
- the airport transfer / the package holiday
- snorkel gear / the boat tour
a We stayed in {1} near {2} and {3}.
p Our base was {1} close to {2}, and we {3}.
p While lodging in {1} not far from {2}, we {3}.
n We wanted to stay in {1} near {2} but {4}.
n We stayed in {1} far away from {2} and {4}.
- a small guesthouse / the harbor / walked everywhere / it was fully booked
- a mountain hut / the lake / hiked before sunrise / never saw the water
- a rented flat / the old town / ate out every night / had to take taxis
- a camper van / the dunes / slept with the doors open / stayed in after dark
a do I need {1} for {2}
p Travelers are required to have {1} for {2}.
p You cannot go on {2} without {1}.
n {1} is not required for {2}.
n {1} can be bought as a souvenir after {2}.
- a visa / a short stay in the country
- winter tires / a drive over the pass
- a permit / the canyon hike
- travel insurance / the group cruise
a I left my {1} {2}; who can I call?
p My {1} must still be {2}. Which number should I ring?
p Whom do I contact about a {1} that I forgot {2}?
n I found somebody's {1} {2}; who can I call?
n I left my {3} with the staff so I could call about the {1}.
- camera / on the tour bus / key
- passport / in the hotel safe / bag
- jacket / at the check-in desk / phone number
- guidebook / in the airport lounge / email address
a {1} is best visited in {2}, when {3}.
p Go to {1} in {2}, because that is when {3}.
p The ideal time for {1} is {2}, as {3}.
n {1} is best avoided in {2}, when {4}.
n {1} closes in {2}, because {4}.
- the valley / spring / the orchards bloom / mudslides block the road
- the desert / winter / the days are mild / the nights are freezing
- the lake district / September / the crowds are gone / it rains without end
- the northern coast / June / it stays light all night / the mosquitoes are worst
a {1} got lost in {2} and had to ask {3} for the way.
p Having lost the way in {2}, {1} asked {3} for directions.
p {3} pointed {1} in the right direction after a wrong turn in {2}.
n {3} got lost in {2} and had to ask {1} for the way.
n {1} knew {2} by heart and gave {3} a tour.
- my cousin / the market alleys / a fruit seller
- the twins / the subway tunnels / a guard
- our guide / the pine forest / a shepherd
- two tourists / the university library / a student
a The hotel room was {1}, but {2}.
p Even though {2}, our room at the hotel was {1}.
p {2}; the room itself, however, was {1}.
n The hotel room was not {1}, and {3}.
n The hotel lobby was {1}, but {3}.
- spotless / the walls were paper thin / nobody cleaned our room
- tiny / the view was worth it / the window faced a wall
- cool and quiet / the lift was out of order / the rooms were stuffy
- old-fashioned / the beds were very comfortable / breakfast was modern
a How much does {1} cost for {2}?
p What would {2} have to pay for {1}?
p I would like to know the price of {1} for {2}.
n How long does {1} last for {2}?
n How many times may {2} go on {1}?
- the ferry crossing / a family of four
- the cable car / two pensioners
- a day of canoe hire / a school group
- the guided cave walk / a child under ten
a We plan to drive from {1} to {2} and fly back.
p Our idea is to go by car from {1} to {2}, returning by plane.
p The outbound trip to {2} from {1} will be on the road and the way home through the air.
n We plan to fly from {1} to {2} and drive back.
n We plan to drive from {1} to {2} and back because we hate flying.
- Vienna / Rome
- the capital / the southern beaches
- Prague / Marseille
- our village / the Scottish highlands
a Pack {1}, because {2}.
p {2}, so you had better bring {1}.
p Do not forget {1}; {2}.
n Leave {1} at home, because {3}.
n Pack {4}, because {3}.
- warm socks / nights at the camp get cold / the camp is heated / sandals
- a plug adapter / the sockets there are different / the sockets there are the same / a flashlight
- insect spray / the river attracts mosquitoes / there are no bugs at all / a raincoat
- a refillable bottle / water on board is expensive / drinks on board are free / some snacks
a Could you recommend {1} where {2}?
p I am searching for {1} at which {2}; any ideas?
p Do you know of {1} where {2}?
n Could you name {1} where {3}?
n Please cancel my booking at {1} where {2}.
- a campsite / dogs are welcome / dogs are forbidden
- a beach / the water is shallow enough for toddlers / only strong swimmers go
- a hostel / guests can cook for themselves / meals are always served
- a museum / you can spend a rainy afternoon for free / you have to book and pay ahead
a The border crossing took us {1} since {2}.
p We needed {1} to get across the border, because {2}.
p {2}, and so crossing into the next country cost us {1}.
n The border crossing took us no time at all since {3}.
n The drive to the border took us {1} since {3}.
- three hours / every car was searched / nobody was checked
- most of the night / only one booth was open / all booths were open
- forty minutes / we had the wrong form / our papers were in order
- half a day / the computers were down / the road was bad
a {1} speaks the local language, so {2} will order for us.
p As {1} knows the language here, {2} will be the one who orders.
p Leave the ordering to {1}; {2} can talk to the locals in their tongue.
n {1} does not speak the local language, so we will order instead.
n {1} speaks the local language, but {2} never orders for us.
- my brother / he
- Aunt Rosa / she
- our driver / he
- the girl from the hostel / she
a We missed the last {1} and spent the night {2}.
p The final {1} left without us, so we slept {2}.
p As no {1} was running any more, we had to stay {2} until morning.
n We caught the last {1} and did not have to spend the night {2}.
n We missed the first {1} and spent the morning {2}.
- ferry / on a bench at the pier
- coach / in the bus station
- shuttle / at a roadside motel
- gondola / in the ski lodge
a Travelling {1} is {2} but {3}.
p It may be {2} to go {1}, yet it is also {4}.
p Going {1} has a good side, being {2}, and a bad one, being {3}.
n Travelling {1} is neither {2} nor {3}.
n Travelling {5} is {2} but {3}.
- by night train / comfortable / slow / not fast / by plane
- with small children / fun / tiring / exhausting / on your own
- on a shoestring / exciting / hard work / demanding / in luxury
- by bicycle / healthy / sweaty / a sticky business / by taxi
a The guide told {1} to {2} at {3}.
p At {3}, {1} were asked by the guide to {2}.
p The guide wanted {1} to {2} when they reached {3}.
n {1} told the guide to {2} at {3}.
n The guide told {1} never to {2} at {3}.
- the visitors / take off their shoes / the temple gate
- the hikers / drink some water / the ridge
- the divers / stay together / the wreck
- the children / keep quiet / the bird reserve
a requirements for renting a car {1}
p To rent a car {1}, you must {2}.
p Anyone hiring a vehicle {1} has to {2}.
n To sell a car {1}, you must {3}.
n You may bring back a rented car {1} and {3}.
- under 25 / pay a young driver fee / find a buyer
- without a credit card / leave a cash deposit / sign the papers
- for crossing borders / ask for a written permit / clear it with the tax office
- with a foreign license / show an official translation / get a dealer number
a I would rather {1} than {2} on holiday.
p On vacation, {3} appeals to me more than {4}.
p Given the choice, I spend my time off {3} and not {4}.
n I would rather {2} than {1} on holiday.
n On holiday I like to {1} as much as I like to {2}.
- hike all day / lie on a beach / hiking from dawn to dusk / sunbathing
- explore a city / sit by a pool / discovering a town / lounging at the pool
- sleep in a tent / book a hotel / camping / staying in hotels
- stay with locals / join a tour group / living with residents / going round with a group
a The {1} in {2} was closed for {3}, so we {4}.
p We {4} because {2} had shut its {1} for {3}.
p {3} kept the {1} in {2} shut, which is why we {4}.
n The {1} in {2} was open in spite of {3}, so we {5}.
n The {1} in {2} was closed for {3} just after we {5}.
- castle / the old town / repairs / visited the gardens / went inside
- aquarium / the port / a private event / watched the boats / saw the sharks
- fish market / the bay / a public holiday / had lunch in a bakery / bought oysters
- lookout tower / the park / a film shoot / climbed the hill / went up

# health
a {1} has had {2} since {3}.
p Ever since {3}, {1} has been suffering from {2}.
p It was {3} when {1} first got {2}, and it has not gone away.
n {1} had {2} until {3} but is fine now.
n {1} has not had {2} since {3}.
- my son / an earache / Tuesday
- my father / a stiff shoulder / last month
- the baby / a mild fever / last night
- our coach / a dry cough / the weekend
a Take {1} {2} with {3}.
p {1} should be swallowed {2}, together with {3}.
p The right way is to have {1} {2}, along with {3}.
n Take {1} {4} and never with {3}.
n Stop taking {1} if you have {3} {2}.
- one tablet / after dinner / a glass of water / before breakfast
- two capsules / in the morning / some food / late at night
- a spoonful of syrup / every six hours / warm tea / only once
- half a pill / at bedtime / a little milk / at lunchtime
a Can I get an appointment with {1} {2}?
p I would like to see {1} {2}. Is there a free slot?
p Does {1} have any time for me {2}?
n Can I cancel my appointment with {1} {2}?
n Can I get an appointment with {1} at any time except {2}?
- the dentist / on Thursday morning
- an eye doctor / this week
- the physiotherapist / after five o'clock
- the skin specialist / before the holidays
a how to get rid of {1} {2}
p You can relieve {1} {2} if you {3}.
p If you {3}, {1} will usually ease {2}.
n You will probably get {1} {2} if you {4}.
n Doctors still argue about what causes {1} {2}.
- hiccups / quickly / hold your breath for a moment / drink soda in a hurry
- a blocked nose / at night / breathe in steam / sleep in dusty rooms
- muscle soreness / after training / stretch and take a warm bath / skip the warm-up
- heartburn / without medicine / avoid late and fatty meals / eat spicy food in bed
a The doctor advised {1} to {2}.
p {1} should {2}; that is what the doctor said.
p On medical advice, {1} ought to {2}.
n {1} advised the doctor to {2}.
n The doctor advised {1} not to {2}.
- my uncle / cut down on salt
- the runner / rest her knee
- the patient / drink more water
- my colleague / sleep on his side
a {1} helps me {2} more than {3} does.
p To {2}, I get more out of {1} than out of {3}.
p {3} is less useful to me than {1} when I need to {2}.
n {3} helps me {2} more than {1} does.
n Neither {1} nor {3} helps me {2}.
- a short walk / clear my head / a cup of coffee
- reading / fall asleep / listening to music
- swimming / stay in shape / going to the gym
- talking to a friend / calm down / breathing exercises
a Is it safe to {1} if you have {2}?
p Does {2} make it dangerous to {1}?
p I suffer from {2}; may I still {1} without risk?
n Can you get {2} if you {1} too often?
n Is it safe to {1} once {2} has gone away?
- fly / a sinus infection
- exercise / high blood pressure
- give blood / a cold
- use the sauna / heart trouble
a The clinic moved my {1} from {2} to {3}.
p My {1} is now on {3}, since the clinic could not do {2}.
p The clinic rang: instead of {2}, I should come on {3} for my {1}.
n The clinic moved my {1} from {3} to {2}.
n My {1} stays on {2}, as the clinic has nothing free on {3}.
- blood test / Monday / Wednesday
- knee scan / March 3 / March 10
- hearing check / Friday afternoon / Saturday morning
- vaccination / the last day of May / the first of June
a {1} quit {2} and now {3}.
p Ever since {1} gave up {2}, things have changed: {1} now {3}.
p {1} no longer does any {2}, and these days {1} {3}.
n {1} took up {2} and now {3}.
n {1} tried to quit {2} but still cannot.
- my boss / smoking / climbs stairs with ease
- Grandpa / drinking / feels ten years younger
- my roommate / late-night snacking / sleeps like a log
- our neighbor / heavy weightlifting / has no back pain
a {1} is more contagious than {2}.
p People catch {1} more easily than {2}.
p Compared with {2}, {1} spreads from person to person faster.
n {2} is more contagious than {1}.
n {1} lasts longer than {2}.
- measles / flu
- a stomach bug / a throat infection
- chickenpox / the common cold
- pink eye / an ear infection
a The nurse {1} before the doctor {2}.
p First the nurse {1}, and afterwards the doctor {2}.
p The doctor {2} only after the nurse {1}.
n The doctor {1} before the nurse {2}.
n The nurse {1} after the doctor {2}.
- took my temperature / listened to my lungs
- cleaned the wound / put in the stitches
- drew some blood / explained the results
- checked the chart / examined the ankle
a You should {1} at least {2}.
p It is wise to {1} {2} or more often.
p Doing it {2} is the minimum: {1} that often, if not more.
n You should {1} at most {2}.
n You do not have to {1} even {2}.
- see a dentist / twice a year
- get up from your desk / once an hour
- wash your hands / before every meal
- change your toothbrush / every three months
a I {1} my {2} while {3}.
p My {2} got hurt: I {1} it when I was {3}.
p While I was {3}, I {1} my {2}.
n I {1} my {4}, not my {2}, while {3}.
n I was careful not to hurt my {2} while {3}.
- twisted / ankle / playing tennis / wrist
- burned / finger / lifting a hot tray / tongue
- strained / back / moving a wardrobe / neck
- bruised / elbow / skating with the kids / knee
a Does my insurance pay for {1}?
p Will the cost of {1} be covered by my health plan?
p I wonder if I must pay for {1} out of my own pocket or if the insurer does.
n Does my insurance still count if I refuse {1}?
n How long do I have to wait for {1}?
- new glasses
- a second opinion
- physiotherapy at home
- dental implants
a {1} feels {2} today than {3}.
p Compared with {3}, {1} seems {2} today.
p If you compare today with {3}, {1} is {2} now.
n {1} felt {2} {3} than today.
n {1} feels just the same today as {3}.
- the patient in room six / better / yesterday
- my mother / much stronger / last week
- the injured keeper / worse / last Sunday
- Grandma / brighter / a few days ago
a Eating {1} {2} can {3}.
p If you have {1} {2}, it may {3}.
p There is a chance that {1} {2} will {3}.
n Eating {1} {2} cannot {3}.
n Eating less {1} {2} can {3}.
- a lot of fiber / every day / improve digestion
- sugary food / between meals / damage your teeth
- oily fish / twice a week / help your heart
- ginger / on a trip / settle an upset stomach
a My {1} hurts when I {2}, but not when I {3}.
p I only get pain in my {1} if I {2}; it is fine when I {3}.
p Whenever I {2}, my {1} aches, although it does not bother me when I {3}.
n My {1} hurts when I {3}, but not when I {2}.
n My {1} hurts both when I {2} and when I {3}.
- knee / go downstairs / walk on flat ground
- shoulder / reach up / carry bags
- jaw / chew / talk
- head / look at a screen / read a book
a Please bring {1} to {2}.
p Remember to have {1} with you at {2}.
p For {2} we ask you to come with {1}.
n Please pick up {1} after {2}.
n You do not need to bring {1} to {2}.
- your vaccination card / the first visit
- a list of your medicines / the check-up
- comfortable shoes / the treadmill test
- the referral letter / the hospital admission
a symptoms of {1}
p People with {1} often {2}.
p If you {2}, you may be suffering from {1}.
n People treat {1} by {3}.
n If you {2}, it rules out {1}.
- dehydration / feel dizzy and have dark urine / drinking salty broth
- hay fever / sneeze a lot and have itchy eyes / taking allergy tablets
- food poisoning / vomit and get cramps / resting and sipping water
- low iron / look pale and tire easily / eating lentils and greens
a {1} recovered from {2} in {3}.
p After {3}, {1} had got over {2}.
p It took {1} {3} to be well again after {2}.
n {1} fell ill with {2} in {3}.
n {1} had not recovered from {2} even after {3}.
- my niece / tonsil surgery / ten days
- the goalkeeper / a torn muscle / six weeks
- our teacher / pneumonia / a month
- the old man / a hip operation / half a year
a I sleep badly if I {1}.
p Whenever I {1}, my night is restless.
p {2} ruins my sleep.
n I sleep badly unless I {1}.
n {2} sends me straight to sleep.
- drink coffee after lunch / an afternoon coffee
- watch the news in bed / catching up with the news under the covers
- eat a large dinner / a heavy evening meal
- argue with someone / having a quarrel
a The pharmacy on {1} is open {2}.
p You can buy medicine on {1} {2}, as the drugstore there is open.
p {2}, the chemist on {1} serves customers.
n The pharmacy on {1} is closed {2}.
n The doctor on {1} sees patients {2}.
- Mill Street / on Sundays
- the main square / until midnight
- Station Road / during the lunch hour
- Harbor Lane / from seven in the morning
# money
a I transferred {1} to {2} {3}.
p {3}, {2} got {1} from my account.
p What {2} received {3}, namely {1}, came from me.
n {2} transferred {1} to me {3}.
n I still have to transfer {1} to {2}, though I meant to do it {3}.
- the deposit / the landlord / on Friday
- two hundred dollars / my sister / last week
- the rest of the fee / the music school / this morning
- my half of the bill / a colleague / right after lunch
a Why was I charged {1} for {2}?
p My statement lists {1} for {2}; can you explain that?
p Please tell me the reason why you took {1} from me for {2}.
n Why was I refunded {1} for {2}?
n Where can I pay {1} for {2}?
- three dollars / a cash withdrawal
- a late fee / a bill I had already settled
- twelve dollars / an account I closed
- double the price / one parking ticket
a The bank {1} our request for {2}, because {3}.
p When we applied for {2}, the bank {1} it, since {3}.
p We asked for {2}; the bank {1} this, and the reason was that {3}.
n The bank {4} our request for {2}, although {3}.
n We {5} the offer of {2} from the bank, because {3}.
- rejected / a mortgage / our income is too low / approved / turned down
- granted / a bigger credit line / we always pay on time / refused / accepted
- postponed / a business loan / some papers are missing / fulfilled / ignored
- approved / a payment break / one of us lost a job / denied / dropped
a how to {1}
p To {1}, {2}.
p If your goal is to {1}, then {2}.
n People who {1} must {3}.
n To find out who is able to {1}, {4}.
- build an emergency fund / put aside a fixed sum each payday / keep it away from the stock market
  / read the survey
- dispute a card payment / report it to your bank in writing / wait for weeks / look at the terms
- lower a phone bill / compare tariffs and drop unused extras / sign for two years / ask around
- improve a credit score / pay every bill on its due date / accept a slow process / check the rules
a {1} spends more on {2} than on {3}.
p A larger part of what {1} pays out goes to {2} than to {3}.
p {3} costs {1} less than {2} does.
n {1} spends more on {3} than on {2}.
n {1} spends nothing at all on {2} or {3}.
- my flatmate / eating out / rent
- the club / equipment / travel
- our household / heating / electricity
- the young couple / child care / food
a The price of {1} {2} {3}.
p {3}, {1} became {4}.
p What people have to pay for {1} {2} {3}.
n The price of {1} stayed the same {3}.
n The quality of {1} {2} {3}, but the price did not.
- coffee / went up / over the winter / more expensive
- petrol / fell / after the tax cut / cheaper
- bread / doubled / within two years / twice as dear
- fresh fish / dropped / during the summer / less costly
a Please cancel {1}; I {2}.
p I {2}, so I want {1} to be stopped.
p Could you end {1}? The thing is that I {2}.
n Please renew {1}; I {2}.
n Please do not cancel {1}, even if I {2}.
- my travel card / lost it on the train
- the standing order / have a new landlord
- the savings plan / need the money now
- my overdraft / no longer use it
a You {1} if you {2} before {3}.
p Those who {2} ahead of {3} {1}.
p Anyone can have this: {2} before {3} and you {1}.
n You {1} if you {2} after {3}.
n You {4} if you {2} before {3}.
- get a discount / pay the invoice / the tenth / get a penalty
- keep the low rate / sign the contract / the end of June / lose the low rate
- avoid a fine / file the tax form / the deadline / risk a fine
- receive a bonus / open an account / New Year / pay a fee
a I lent {1} {2}, and {3}.
p {1} borrowed {2} from me, and {3}.
p What {1} got from me as a loan was {2}, and {3}.
n {1} lent me {2}, and {3}.
n I gave {1} {2} as a present, and {3}.
- my nephew / five hundred euros / nothing was put in writing
- a friend / some money / that was two years ago
- the neighbor / fifty dollars / I felt good about it
- my brother / a large sum / our parents knew nothing
a Cash is {1} at {2}; {3}.
p {3} at {2}, where cash is {1}.
p If you go to {2}, know that cash is {1}: {3}.
n Cash is {4} at {2}.
n Cards are {1} at {2}.
- not accepted / the swimming pool / visitors have to pay by card / always welcome
- preferred / the flea market / most sellers want coins and notes / not accepted
- required / the village bakery / the card reader never works / forbidden
- counted twice / the front desk / two people check the till / hardly ever counted
a Our budget for {1} is {2}, which {3}.
p We can spend {2} on {1}, and this {3}.
p {2} is all that we have set aside for {1}; it {3}.
n Our budget for {1} is far above {2}, which {4}.
n Our debt for {1} is {2}, which {3}.
- the new kitchen / eight thousand / has to cover labor / leaves labor aside
- the wedding / six thousand / pays for food and music / pays for anything
- the office move / one thousand / will not be enough / is more than enough
- the garden party / three hundred / means no live band / means a live band
a Is it better to {1} or to {2}?
p Which is the smarter choice: {3} or {4}?
p I cannot decide whether I should {1} or {2}.
n Is it true that you can both {1} and {2}?
n It is clearly better to {1} than to {2}.
- rent a flat / buy one / renting an apartment / owning one
- repay the loan early / invest the money / getting rid of the debt ahead of time / putting the
  cash to work
- lease a car / pay for it in full / a leasing deal / an outright purchase
- keep the old pension / move to a new one / staying with the current pension plan / switching
a The cashier gave me {1} too {2} in change.
p When I got my change back at the till it was {1} {3}.
p I was handed the wrong change: {1} too {2}.
n I gave the cashier {1} too {2} by mistake.
n The cashier gave me {1} in change, which was exactly right.
- five dollars / little / short
- ten dollars / much / over what was due
- eighty cents / little / less than it should have been
- two euros / much / more than I had coming
a {1} pays {2} interest, but {3}.
p You earn {2} interest with {1}, though {3}.
p Although {3}, {1} yields {2} interest.
n {1} costs you {2} interest, and {3}.
n {1} pays no interest, but {4}.
- this savings account / three percent / you cannot touch the money for a year / you can take out
  money any time
- the bond / five percent / the firm behind it is risky / the state stands behind it
- the youth account / a little / deposits are limited / deposits have no limit
- the online bank / four percent / only for new customers / it welcomes everybody
a We {1} so that we can {2}.
p In order to {2}, we {1}.
p Our plan to {2} is the reason that we {1}.
n We {2} so that we can {1}.
n We {1}, but we will still never be able to {2}.
- cook at home / save for a house
- share one car / pay off our debts
- work extra shifts / travel next year
- sell old furniture / afford new windows
a {1} must be paid by {2}, not by {3}.
p The duty to pay {1} falls on {2} rather than on {3}.
p It is up to {2}, and not {3}, to cover {1}.
n {1} must be paid by {3}, not by {2}.
n {1} must be split between {2} and {3}.
- water costs / the tenant / the owner
- the repair / the garage / the customer
- the delivery fee / the buyer / the seller
- school lunch / the town / the parents
a My {1} arrives {2}, {3}.
p {2} is when I get my {1}, {3}.
p I can expect my {1} {2}, {3}.
n I have to pay back my {1} {2}, {3}.
n My {1} never arrives {2}, {3}.
- salary / on the last day of the month / unless it is a holiday
- pension / at the start of each month / without fail
- tax refund / in about four weeks / give or take a day
- grant / every spring / provided that I apply on time
a tax deduction for {1}
p You may deduct {1} from your taxable income if {2}.
p If {2}, the cost of {1} will reduce your tax.
n You must pay a special tax on {1} if {2}.
n You may not deduct {1} from your income, even if {2}.
- a home office / you use the room for work only
- work clothes / the job requires them
- gifts to charity / you keep the receipts
- commuting by train / you hold a season ticket
a The receipt shows {1}, yet I only {2}.
p I only {2}, but {1} appeared on the receipt.
p There is an error on my receipt: it lists {1}, while I just {2}.
n The receipt correctly shows {1}, as I {3}.
n The receipt does not show {1}, although I {3}.
- three sandwiches / had one / ordered three
- a wine bottle / drank water / bought one
- a full tank / filled up half / filled it up
- two adult tickets / took one / took a pair

# work
a The meeting was {1} from {2} to {3}.
p Please note {3} as the new time of the meeting and forget {2}.
p The meeting, first set for {2}, was {1} to {3}.
n The meeting was {1} from {3} to {2}.
n The meeting was not {1}; {2} is still right.
- moved / Monday / Tuesday
- pushed back / noon / three o'clock
- brought forward / next Friday / this Friday
- shifted / the morning / the late afternoon
a Could you {1} before you {2}?
p I need you to {1}; please do it ahead of the moment you {2}.
p Before you {2}, would you be so kind as to {1}?
n Could you {2} before you {1}?
n Could you {1} only after you {2}?
- sign the contract / leave for lunch
- check the figures / send the report
- water the office plants / go on vacation
- show me the slides / meet the client
a {1} asked {2} for {3}.
p {3} is what {1} wanted from {2}.
p {2} got a request for {3} from {1}.
n {2} asked {1} for {3}.
n {1} gave {2} {3}.
- the manager / the intern / a short summary
- the new hire / the director / more time
- the client / the designer / a second draft
- the union / the company / a pay rise
a I applied for {1}, but {2}.
p My application for {1} went nowhere: {2}.
p Even though I tried to get {1}, {2}.
n I was offered {1}, but I {3}.
n I applied for {1}, and soon {4}.
- the sales position / they chose someone from inside / turned it down / I was hired
- a transfer to the harbor office / my boss said no / preferred to stay / it was granted
- a part-time job at the archive / I never heard back / refused / they called me
- the evening shift / it was already filled / took the morning / I got it
a Our team {1} the {2} {3}.
p The {2} was {4} by our team {3}.
p {3} our team managed to deal with the {2}: it has been {4}.
n Our team has not yet {4} the {2}, which should have happened {3}.
n Another team {1} the {2} {3}, not ours.
- finished / annual audit / two days early / completed
- launched / web shop / last night / put online
- rejected / cheapest offer / without debate / turned down
- repaired / packing machine / during the break / fixed
a Working {1} suits me, because {2}.
p {2}, and that is why I like to work {1}.
p I enjoy doing my job {1}: {2}.
n Working {1} does not suit me, although {2}.
n Working {1} suits me, except that {3}.
- from home / I can concentrate / I cannot concentrate
- at night / there are few calls / there are too many calls
- in a small firm / everybody knows each other / I know nobody
- outdoors / I need fresh air / the air is bad
a The printer {1} whenever someone {2}.
p Each time that a person {2}, the office printer {1}.
p If anyone {2}, our printer always {1}.
n The printer never {1} when someone {2}.
n The printer {1} unless someone {2}.
- jams / uses thick paper
- stops / opens the side door
- prints blank pages / sends a large file
- beeps / picks the lower tray
a {1} will replace {2} as {3}.
p {2} is handing over the role of {3} to {1}.
p The job of {3}, now held by {2}, goes to {1}.
n {2} will replace {1} as {3}.
n {1} will assist {2}, who stays on as {3}.
- Mrs. Lindt / Mr. Okoro / head of sales
- a younger lawyer / the founder / chair of the board
- our accountant / her deputy / treasurer
- the night nurse / a senior colleague / shift leader
a reasons to {1}
p You might {1} if {2}.
p If {2}, it makes sense to {1}.
n Nobody should {1} just because {2}.
n You might {3} if {2}.
- decline a job offer / the contract seems unfair / accept a job offer
- hire a freelancer / the work is temporary / dismiss a freelancer
- change careers / your work bores you / keep your career
- hold a stand-up meeting / long talks waste your mornings / ban stand-up meetings
a My contract {1}, so I {2}.
p I {2} because my contract {1}.
p As my work contract {1}, I {2}.
n My contract {1}, but I do not think I {2}.
n My contract {3}, so I {2}.
- ends in March / am looking for something new / starts in March
- forbids side jobs / cannot help at your shop / allows side jobs
- includes overtime / stay until eight / excludes overtime
- was extended / will remain here next year / was cancelled
a Nobody {1} except {2}, who {3}.
p {2}, who {3}, was the only one that {1}.
p Only one person {1}: it was {2}, who {3}.
n Everybody {1} except {2}, who {3}.
n Nobody {1}, not even {2}, who {3}.
- read the manual / the trainee / loves details
- came to the workshop / the cleaner / lives next door
- noticed the error / a student / had just joined
- objected to the plan / the engineer / knew the risks
a I need {1} off to {2}.
p May I be absent for {1}? I have to {2}.
p I would like to take {1} away from work so that I can {2}.
n I will work {1} extra because I do not have to {2}.
n I took {1} off, but I did not {2} in the end.
- two days / move house
- Friday / attend a funeral
- one afternoon / renew my passport
- a week / look after my sick daughter
a The {1} is due {2}, so {3}.
p {3}, because we have to hand in the {1} {2}.
p {2} is the deadline for the {1}; therefore {3}.
n The {1} was due {4}, so {3}.
n The {1} has no deadline, so {5}.
- budget draft / on Thursday / please send me your numbers / on Wednesday / take your time
- final report / at noon tomorrow / we will stay late / at noon yesterday / we can go home
- grant proposal / in two weeks / start writing now / two weeks ago / there is no hurry
- safety plan / by the end of May / the inspection can go ahead / at the start of May / the
  inspection can wait
a {1} praised {2} for {3}.
p {2} earned words of praise from {1} for {3}.
p {1} told {2} what a good job it had been, {3}.
n {2} praised {1} for {3}.
n {1} scolded {2} for {3}.
- the boss / the drivers / staying calm
- a customer / the waiter / finding her ring
- the mayor / the volunteers / cleaning the park
- the chef / the apprentice / working so fast
a Is there {1} near {2}?
p Does the area around {2} have {1}?
p Close to {2}, can one find {1}?
n Is there {1} that is not near {2}?
n Who is responsible for {1} near {2}?
- a quiet room / the main entrance
- a decent canteen / your new office
- a place to lock a bike / the warehouse
- a coffee machine / the training center
a After {1}, sales {2} by {3}.
p Sales {2} by {3} once {1} was over.
p There was a {4} of {3} in sales in the wake of {1}.
n After {1}, sales {5} by {3}.
n Before {1}, sales {2} by {3}.
- the summer campaign / rose / ten percent / growth / fell
- the product recall / dropped / one third / decline / grew
- the trade fair / climbed / a quarter / gain / sank
- the price change / shrank / five percent / decrease / rose
a I was {1} during {2} because {3}.
p {3}, so during {2} I was {1}.
p The fact that {3} explains why I was {1} in {2}.
n I was {4} during {2}, although {3}.
n I was {1} until {2}, because {3}.
- nervous / the interview / so much depended on it / relaxed
- half asleep / the training / I had worked all night / wide awake
- silent / the debate / both sides were wrong / very loud
- absent / the fire drill / I had a dental visit / present
a The new rule {1} staff to {2}.
p Under the rule that was just introduced, employees {3} {2}.
p Staff {3} {2}; that is what the new rule says.
n The new rule {4} staff to {2}.
n The old rule {1} staff to {2}, but the new one does not.
- allows / bring their dogs / may / forbids
- requires / wear a badge / must / forbids
- encourages / cycle to work / are urged to / forbids
- orders / lock every window / have to / forbids
a {1} got promoted although {2}.
p Despite the fact that {2}, {1} was given a higher position.
p {2}, yet it was {1} who moved up the ladder.
n {1} got promoted because {2}.
n {1} did not get promoted, because {2}.
- the quiet programmer / others had been there longer
- Martha / she had asked for fewer hours
- the youngest clerk / he had no degree
- our foreman / the boss disliked him
a how to write {1}
p In {1} you should {2}.
p {1} works best when you {2}.
n After reading {1} you should {3}.
n Never {2} in {1}.
- a resignation letter / stay polite and name your last day / wait a week
- a cover letter / explain why the job interests you / call the sender
- meeting minutes / note decisions and who does what / sign at the bottom
- a project update / start with what has changed / ask for more detail

# school
a {1} have to hand in {2} by {3}.
p {3} is the latest moment at which {1} can submit {2}.
p The deadline for {2}, which all {1} must turn in, is {3}.
n {1} will get back {2} by {3}.
n {1} do not have to hand in {2} before {3}.
- students / the essay / Friday at noon
- pupils / their science posters / the end of term
- candidates / two sample lessons / the first of May
- beginners / the grammar sheet / tomorrow
a {1} explained {2} to {3}.
p {3} learned about {2} from {1}.
p Thanks to {1}, {3} now understand {2}.
n {3} explained {2} to {1}.
n {1} refused to explain {2} to {3}.
- our tutor / fractions / the younger kids
- the girls / the rules of chess / their parents
- two seniors / the lab equipment / the newcomers
- the professor / the proof / the visitors
a What grade do I need to {1}?
p Which mark is required if I want to {1}?
p I want to {1}; how good must my result be?
n Which grade are the pupils who {1} in?
n Did my grade help me to {1}?
- pass the biology course
- get into medical school
- keep my scholarship
- skip the oral exam
a The exam was {1} than {2}, because {3}.
p Since {3}, {2} was not like this exam, which was {1}.
p {3}; that made the exam {1} than {2}.
n {4} was {1} than the exam, because {3}.
n The exam was just like {2}, although {3}.
- harder / the practice test / it covered new topics / The practice test
- shorter / last year's / one part was dropped / Last year's
- easier / we had feared / notes were allowed / What we had feared
- more fun / the usual one / we worked in pairs / The usual one
a {1} borrowed {2} from {3} and {4}.
p {3} let {1} have {2} for a while, and {1} {4}.
p On loan from {3}, {2} went to {1}, who {4}.
n {3} borrowed {2} from {1} and {4}.
n {1} borrowed {2} from {3} but never {4}.
- Emma / a calculator / the librarian / returned it on time
- a classmate / history notes / Tom / copied them all
- the new boy / gym shoes / his cousin / wore them for weeks
- our teacher / a projector / the church / brought it back broken
a how to prepare for {1}
p Before {1} it helps to {2}.
p The best way to get ready for {1} is to {2}.
n After {1} it helps to {3}.
n {1} is usually held when pupils {2}.
- a spelling test / practice hard words aloud / correct your mistakes
- an oral exam / rehearse with a friend / thank the examiner
- a school debate / collect points for both sides / shake hands
- a long written exam / solve old papers against the clock / sleep in
a The school {1} {2} until {3}.
p Until {3}, {2} will be {4} by the school.
p Before {3}, nothing will change: the school {1} {2}.
n The school {1} {2} only from {3} onward.
n The school {5} {2} until {3}.
- allows / phones in the yard / the summer / permitted / bans
- suspended / swimming lessons / the pool is fixed / paused / continued
- provides / free lunches / the end of May / offered / stopped
- forbids / running in the halls / the new floor is dry / banned / allows
a My {1} is good at {2} but struggles with {3}.
p {3} gives my {1} trouble, while {2} comes easily.
p My {1} finds {2} easy; {3} is another matter.
n My {1} is good at {3} but struggles with {2}.
n My {1} is good at both {2} and {3}.
- daughter / algebra / reading aloud
- stepson / languages / chemistry
- younger brother / drawing / sitting still
- niece / geography / long division
a {1} was absent {2} due to {3}.
p {3} kept {1} away from class {2}.
p {1} did not come to school {2}; the reason was {3}.
n {1} came to class {2} in spite of {3}.
n {1} was late {2} due to {3}.
- half the class / on Monday / the flu
- Oliver / all week / a broken leg
- the art teacher / yesterday / a family matter
- the whole bus / this morning / icy roads
a You learn {1} faster if you {2}.
p {2} and you will pick up {1} more quickly.
p For quicker progress in {1}, {2}.
n You forget {1} faster if you {2}.
n You learn {1} faster if you do not {2}.
- a language / speak it every day
- the piano / practice in short sessions
- to type / keep your eyes off the keys
- multiplication / play number games
a Are {1} allowed to {2} during {3}?
p May {1} {2} while {3} is going on?
p I wonder if the rules let {1} {2} in the course of {3}.
n Are {1} forced to {2} during {3}?
n Why did {1} {2} during {3}?
- students / leave the room / the exam
- parents / take pictures / the concert
- visitors / use the gym / the holidays
- first graders / play outside / the lunch break
a The course starts {1} and ends {2}.
p {1} is when the course begins; {2} it is over.
p The first lesson is {1}, the final one {2}.
n The course starts {2} and ends {1}.
n The course starts {1} and has no fixed end.
- in October / in February
- at eight / at half past nine
- on a Monday / on a Thursday
- before Easter / in July
a {1} chose {2} over {3}, since {4}.
p As {4}, {1} went for {2} instead of {3}.
p {4}, so {1} preferred {2} to {3}.
n {1} chose {3} over {2}, since {4}.
n {1} chose neither {2} nor {3}, since {4}.
- most pupils / drama / music / the teacher is funny
- my friend / Spanish / French / her family lives in Chile
- the twins / the evening class / the weekend course / they work during the day
- the school / tablets / paper books / the bags were getting heavy
a The teacher {1} because the pupils {2}.
p The pupils {2}, and so the teacher {1}.
p When the teacher {1}, it was due to the fact that the pupils {2}.
n The pupils {2} because the teacher {1}.
n The teacher {1} even though none of the pupils {2}.
- raised her voice / were talking
- cancelled the quiz / looked exhausted
- repeated the lesson / had not understood it
- was proud / won the science prize
a Only {1} of the {2} {3}.
p Just {1} of the {2} {3}, no more than that.
p Apart from {1}, none of the {2} {3}.
n All but {1} of the {2} {3}.
n Not even {1} of the {2} {3}.
- three / applicants / passed the entrance test
- one / classrooms / has a working heater
- two / boys / joined the choir
- five / graduates / found work abroad
a I want to study {1} at {2} because {3}.
p {3}, which is why {1} at {2} would be my choice of degree.
p My hope is to do a degree in {1} at {2}: {3}.
n I stopped studying {1} at {2} because {4}.
n I want to teach {1} at {2} because {3}.
- law / a small college / classes there are tiny / classes there are huge
- physics / the technical university / it has great labs / it has poor labs
- nursing / a city hospital school / I want to help people / it was too hard
- design / an art academy / drawing is my life / drawing bored me
a {1} lent {2} the {3} so that the homework could be done.
p So that the homework got done, {2} received the {3} from {1} for a while.
p {2} did the homework with the {3} of {1}.
n {2} lent {1} the {3} so that the homework could be done.
n {1} kept the {3} from {2} until the homework was done.
- Nora / Ben / atlas
- the librarian / our group / dictionary
- my aunt / the twins / laptop
- the tutor / Sarah / compass
a The {1} is too {2} for {3}.
p {3} cannot cope with the {1}, as it is too {2}.
p The {1} is so {2} that it does not suit {3}.
n The {1} is not {2} enough for {3}.
n The {1} is just {2} enough for {3}.
- textbook / difficult / ten-year-olds
- classroom / small / thirty people
- school bag / heavy / a first grader
- lecture / long / tired students
a when does {1} start
p {1} begins {2}.
p The beginning of {1} is {2}.
n {1} is over {2}.
n {1} was cancelled {2}.
- the autumn term / in the first week of September
- the parents' evening / at seven on Tuesday
- the school fair / right after the morning lessons
- enrollment for evening classes / on the fifteenth of August
a If it {1}, {2} will take place {3}.
p {2} will be held {3} in case it {1}.
p Should it happen that it {1}, we will have {2} {3}.
n If it {1}, {2} will not take place {3}.
n Unless it {1}, {2} will take place {3}.
- rains / sports day / in the gym
- snows heavily / the spelling contest / a week later
- gets too hot / the graduation / in the hall
- stays dry / the class photo / under the oak

# weather
a {1} is expected {2}, with {3}.
p Forecasters say that {2} we will get {1}, along with {3}.
p {2}, be ready for {1} and {3}.
n {1} is no longer expected {2}, despite {3}.
n {1} surprised everyone {4}, with {3}.
- heavy rain / tonight / gusts near the coast / last night
- light snow / on Saturday / temperatures below zero / last Saturday
- thick fog / tomorrow morning / poor visibility / yesterday morning
- a heat wave / next week / warm nights / last week
a It was {1} in {2} than in {3}.
p {3} had a day that was {4} than the one in {2}.
p Compared with {3}, {2} was {1}.
n It was {1} in {3} than in {2}.
n It was just as {5} in {2} as in {3}.
- colder / the valley / the mountains / milder / cold
- windier / the harbor / the center / calmer / windy
- drier / the east / the west / wetter / dry
- warmer / the city / the suburbs / cooler / warm
a Will it {1} {2}?
p Is there any chance of {3} {2}?
p What does the forecast say: are we getting {3} {2}?
n Did it {1} {4}?
n How much {3} fell {4}?
- rain / this evening / rain / yesterday evening
- snow / at Christmas / snow / last Christmas
- hail / later today / hail / this morning
- drizzle / at the weekend / drizzle / last weekend
a The storm {1} and {2}.
p {3} by the storm, which also {2}.
p Because of the storm there was damage: it {1}, and besides it {2}.
n The storm {2} but did not {4}.
n The storm came close, but nobody lost anything, and it hardly {2}.
- tore off roofs / knocked down trees / Roofs were ripped away / tear off any roofs
- cut the power / flooded cellars / The electricity was knocked out / cut the power
- blocked the railway / damaged boats / The rail line was cut off / block the railway
- ruined the harvest / killed two cows / The crops were destroyed / ruin the harvest
a The {1} melted {2}, so {3}.
p {3}, because the {1} had thawed {2}.
p There was no {1} left after it thawed {2}, and so {3}.
n The {1} froze {2}, so {4}.
n The {1} did not melt {2}, so {4}.
- ice on the lake / in March / nobody could skate anymore / everyone went skating
- snow on the slope / within a day / the ski race was called off / the ski race went ahead
- frost on the fields / by nine / the farmer could plow / the farmer had to wait
- ice on the steps / in the sun / we walked down safely / somebody slipped
a best time of day to avoid {1} in summer
p {2} is when you suffer least from {1} in summer.
p Go out {2} if you want to escape {1} in summer.
n In summer you have to put up with {1} mostly {3}.
n In winter there is no need to think of {1} {2}.
- strong sun / before ten in the morning / around midday
- the heat / shortly after sunrise / in the afternoon
- sudden storms / early in the day / toward evening
- high ozone levels / late at night / in the early afternoon
a Because of {1}, {2} {3}.
p {2} {3}; this was caused by {1}.
p It was {1} that led to it: {2} {3}.
n Because of {2}, {1} came as no surprise.
n It was not because of {1} that {2} {3}.
- the drought / the river / nearly dried up
- black ice / the highway / was shut
- the frost / many blossoms / died
- low clouds / the balloon ride / was put off
a I prefer {1} to {2}, because {3}.
p {3}, so I like {1} better than {2}.
p Give me {1} rather than {2}, since {3}.
n I prefer {2} to {1}, because {4}.
n I prefer {1} to {2}, although {4}.
- autumn / spring / the colors are lovely / pollen is a problem
- dry cold / damp heat / I can dress for it / frost hurts my hands
- snow / rain / it makes everything quiet / shoveling is work
- windy days / still ones / I can fly my kite / my hat blows off
a It has not {1} {2} since {3}.
p The last time it {1} {2} was {4}.
p Back {4} it {1} {2} for the last time.
n It has {1} {2} every day since {3}.
n It had never {1} {2} before {3}.
- rained / in our region / early April / in early April
- snowed / on the island / 1987 / in 1987
- drizzled / on the coast / the new year / around the new year
- hailed / in the village / June / in June
a Wear {1} today: {2}.
p {2}, so you should go out in {1} today.
p You will be glad of {1} today, because {2}.
n You will not need {1} today: {3}.
n Wear {4} today: {2}.
- a raincoat / showers are coming / the sky is clear / shorts
- sunglasses / the light is very bright / it is overcast / earmuffs
- thick gloves / an icy wind is blowing / it is mild and calm / sandals
- rubber boots / the paths are muddy / the paths are dry / slippers
a The forecast was {1}: {2}.
p {2}, which shows that the prediction was {1}.
p What the weather service had said turned out {1}, for {2}.
n The forecast was not {1}: {3}.
n There was no forecast at all, yet {2}.
- wrong / it stayed sunny / it rained as announced
- right / the storm hit at six / the storm never came
- too gloomy / we only had one shower / it poured for hours
- spot on / the fog lifted at noon / the fog stayed all day
a In {1} the sun {2} around {3}.
p Around {3} is when the sun {2} in {1}.
p {3} or so: that is the hour at which the sun {2} in {1}.
n In {1} the sun {4} around {3}.
n In {5} the sun {2} around {3}.
- December / sets / four in the afternoon / rises / June
- June / rises / five in the morning / sets / December
- early March / goes down / six / comes up / late May
- late autumn / comes up / half past seven / goes down / early summer
a {1} were evacuated when {2}.
p When {2}, people had to leave; {1} were brought to safety.
p {2}, and therefore {1} were taken out of danger.
n {1} stayed where they were when {2}.
n {1} were allowed back home when {3}.
- forty families / the river burst its banks / the river had gone down
- the campers / lightning struck the site / the thunderstorm was over
- several villages / the wildfire came near / the wildfire was out
- the hospital patients / water entered the ground floor / the water was pumped out
a how cold does it get in {1}
p In {1} temperatures can drop to {2}.
p It may be as cold as {2} in {1}.
n In {1} temperatures can climb to {3}.
n The average temperature in {4} is {2}.
- the desert at night / two degrees / forty degrees / the desert by day
- the mountain hut in May / minus five / eighteen / the valley in May
- an unheated cabin / minus ten / twenty / a heated cabin
- the cave / six degrees / fifteen degrees / the parking area
a A {1} was seen over {2} just before {3}.
p Shortly ahead of {3} people spotted a {1} above {2}.
p Over {2}, a {1} appeared right before {3}.
n A {1} was seen over {2} long after {3}.
n No {1} was seen over {2} before {3}.
- double rainbow / the bay / sunset
- waterspout / the lake / the rain began
- dark funnel / the fields / midnight
- strange glow / the hills / dawn
a The wind {1} from {2}, which means {3}.
p {3}, given that the wind {1} from {2}.
p A wind that {1} from {2} tells us one thing: {3}.
n The wind {1} toward {2}, which means {4}.
n The wind no longer {1} from {2}, which means {4}.
- blows / the sea / the air stays cool / the air stays hot
- comes / the south / it will get warmer / it will get colder
- turns and blows / the north / frost is near / frost is unlikely
- arrives / the desert / dust is on its way / the air will be clean
a We {1} despite {2}.
p {2} did not stop us: we {1}.
p Even with {2}, we {1}.
n We would have {3} but for {2}.
n Because of {2}, we never {3}.
- had a picnic / the drizzle / had a picnic
- sailed out / a gale warning / sailed out
- slept well / the thunder / slept well
- cycled home / the sleet / cycled home
# sports
a {1} beat {2} {3} {4}.
p {2} lost to {1} {4}, the result being {3}.
p {4}, {1} won {3} against {2}.
n {2} beat {1} {3} {4}.
n {1} drew with {2} {4} after leading {3}.
- the visitors / the home team / three to one / on Sunday
- our juniors / the town club / two nil / last night
- the goalkeepers / the strikers / five four / in a friendly match
- the blue team / the red team / six to four / at the school cup
a {1} scored {2} and {3}.
p {1} {3} after scoring {2}.
p It was {1} who scored {2}; besides that, the same player {3}.
n {1} {4} and never scored.
n {1} failed to score {2} but {3}.
- the captain / the winning goal / hurt an ankle / conceded a goal
- the substitute / twice / got a yellow card / was sent off
- the youngest player / from the halfway line / kissed the ball / lost the ball
- the defender / an own goal / left the field in tears / saved a goal
a How often do you {1} to {2}?
p To {2}, how many times do you {1}?
p What is your usual rhythm: how regularly do you {1} in order to {2}?
n How long ago did you {1} to {2}?
n Why do you {1} if you do not want to {2}?
- swim / stay fit
- lift weights / build muscle
- stretch / prevent injuries
- run / train for the marathon
a {1} trains {2} so as not to {3}.
p In order not to {3}, {1} practices {2}.
p For {1}, who does not want to {3}, training is {2}.
n {1} trains {2} and still {4}.
n {1} stopped training {2} so as not to {3}.
- my cousin / every morning / lose her place in the squad / lost her place
- the old boxer / with light gloves / hurt his hands / hurts his hands
- the rowing crew / on the upper river / meet tourist boats / meets tourist boats
- our keeper / in the dark / get distracted / gets distracted
a The match was {1} because {2}.
p {2}, so the game was {1}.
p {2}: that is the reason why the game was {1}.
n The match was {3} even though {2}.
n The match was {1}, but not because {2}.
- stopped / the floodlights failed / continued
- delayed / the referee was stuck in traffic / started on time
- repeated / an illegal player took part / declared valid
- moved indoors / the pitch was under water / played outside
a I am looking for a {1} partner who {2}.
p Who {2} and would like to join me for some {1}?
p If you are someone who {2}, let us do some {1} together.
n I had a {1} partner who {2} but we split up.
n I do not want a {1} partner who {2}.
- running / keeps a slow pace
- climbing / is used to long routes
- tennis / has time on Wednesdays
- chess / does not mind losing
a rules for {1}
p In {1}, {2}.
p A basic rule of {1} is that {2}.
n In {1} it is no longer the rule that {2}.
n In {3}, {2}.
- beach volleyball / each team has two players / indoor volleyball
- water polo / players may not touch the bottom / field hockey
- table tennis / a set goes to eleven points / badminton
- relay races / the baton has to be passed inside a zone / sprint races
a {1} is fitter than {2}, but {2} is more {3}.
p {2} may be more {3}, yet {1} is in better shape.
p When it comes to fitness {1} leads; as for being {3}, {2} is ahead.
n {2} is fitter than {1}, but {1} is more {3}.
n {1} is both fitter and more {3} than {2}.
- Anna / Laura / patient
- the champion / the challenger / experienced
- my dad / my uncle / flexible
- the rookie / the veteran / clever
a The coach told {1} to {2} and {3} to {4}.
p {1} had orders from the coach to {2}, whereas {3} had to {4}.
p The coach wanted two things: {3} should {4}, and {1} should {2}.
n The coach told {1} to {4} and {3} to {2}.
n {1} told the coach to {2} and {3} to {4}.
- the wingers / stay wide / the striker / drop back
- the beginners / rest / the others / keep running
- the divers / warm up / the swimmers / dry off
- the guards / press / the center / wait
a Tickets for {1} cost {2} {3}.
p {3}, you pay {2} to get into {1}.
p Admission to {1} is {2} {3}.
n Tickets for {1} are sold out {3}.
n Tickets for {1} used to cost {2} {3}, but now they are free.
- the final / forty dollars / for adults
- the ice hockey game / half price / for students
- the rowing cup / nothing / for club members
- the horse show / nine euros / on weekdays
a {1} finished {2} in {3}.
p In {3}, {1} came {4}.
p When {3} was over, {1} was {5} on the list.
n {1} was leading {3} but did not finish.
n {1} finished {6} in {3}.
- our runner / first / the city marathon / in before everyone else / top / last
- the French boat / second / the regatta / in as runner-up / number two / fifth
- the favorite / fourth / the downhill race / just short of a medal / number four / first
- my sister / last / the obstacle course / in behind all others / bottom / second
a After {1}, {2} {3}.
p {2} {3} once {1} was behind them.
p It was after {1} that {2} {3}.
n Before {1}, {2} {3}.
n {2} would have {4} if not for {1}.
- the third defeat in a row / the fans / left early / left early
- the long break / the players / felt rusty / felt rusty
- a week in the mountains / the skiers / broke all records / broken all records
- the medal ceremony / the judges / admitted a mistake / admitted a mistake
a You need {1} to {2} safely.
p Without {1} it is dangerous to {2}.
p Make sure you have {1} if you want to {2} without risk.
n You can {2} safely without {1}.
n With {1} it becomes dangerous to {2}.
- a helmet / ride these trails
- a life jacket / paddle on the river
- sharp edges / ski on ice
- a spotter / press heavy weights
a {1} used to {2}, but now {3}.
p These days {3}, though earlier {1} would {2}.
p In the past {1} did {2}; that has changed, and now {3}.
n {1} still does {2}, and {4}.
n {1} never used to {2}, but now {5}.
- our club / play on grass / it has an artificial pitch / it has no artificial pitch / it plays on
  grass
- my wife / jog before work / she goes to yoga / she never goes to yoga / she jogs before work
- the team / travel by bus / it flies to away games / it never flies / it takes the bus
- the champion / smoke / he hates the smell / he likes the smell / he smokes a lot
a Does {1} have {2} for {3}?
p I want to know if {3} can get {2} at {1}.
p Are there {2} that {1} offers to {3}?
n Does {1} expect {3} to bring {2}?
n Why does {1} no longer have {2} for {3}?
- the climbing hall / courses / absolute beginners
- the sports center / lockers / day visitors
- the golf club / lower fees / young people
- the rowing school / boats / disabled athletes
a {1} missed {2} by {3}.
p {3} more and {1} would have got {2}.
p {1} was only {3} away from {2}.
n {1} beat {2} by {3}.
n {1} got {2} with {3} to spare.
- the sprinter / the record / a tenth of a second
- the jumper / a medal / two centimeters
- our team / the playoffs / a single point
- the archer / the final / one arrow
a The referee {1} after {2}.
p {2}, and then the referee {1}.
p {2}, which made the referee act: he {1}.
n The referee {1} before {2}.
n The referee never {1}, although {2}.
- showed a red card / the midfielder kicked an opponent
- gave a penalty / the ball hit a hand
- stopped the fight / the older man went down twice
- changed his mind / he had seen the replay
a Cycling {1} is {2} than {3}.
p I find {3} less {4} than going by bike {1}.
p A bike ride {1} beats {3} in being {4}.
n {3} is {2} than cycling {1}.
n Cycling {1} is just as {4} as {3}.
- uphill / more tiring / running on flat ground / tiring
- along the canal / more relaxing / walking in town / relaxing
- in heavy traffic / more dangerous / skating in the park / dangerous
- with friends / more fun / training on your own / fun
a Where can I {1} {2}?
p I want to {1} {2}; which place would you suggest?
p Is there a spot where people can {1} {2}?
n When can I {1} {2}?
n Who taught you to {1} {2}?
- play badminton / in winter
- learn to surf / without a long drive
- watch the derby / with other fans
- rent skis / for a single day

# home
a The {1} in {2} is leaking, so {3}.
p {3}, because water is coming out of the {1} in {2}.
p Water drips from the {1} in {2}; hence {3}.
n The {1} in {2} has stopped leaking, so {4}.
n The {1} in {2} is blocked, so {3}.
- pipe / the basement / I shut the main valve / I opened the main valve
- tap / the guest bathroom / we put a bucket under it / we took the bucket away
- radiator / the hall / please call a plumber / nobody needs to call a plumber
- washing machine / the laundry room / do not use it / you can use it again
a how to {1}
p You can {1} by {2}.
p Try {2}: this is a good way to {1}.
n Never try {2} when you want to {1}.
n You can {3} by {2}.
- fix a squeaky door / oiling the hinges / make a door squeak
- unblock a sink / using a plunger and hot water / block a sink
- fill small holes in a wall / pressing in putty and sanding it flat / drill small holes in a wall
- remove old wallpaper / soaking it with soapy water / hang fresh wallpaper
a {1} painted {2} {3} instead of {4}.
p {2} is now {3}, not {4}, because {1} painted it that way.
p Rather than {4}, {3} was the color that {1} put on {2}.
n {1} painted {2} {4} instead of {3}.
n {1} painted {5} {3} instead of {4}.
- my wife / the hallway / yellow / white / the ceiling
- the workers / the fence / dark green / brown / the shed
- the kids / the birdhouse / bright red / blue / the bench
- the owner / the front door / black / gray / the garage
a Do I have to {1} before I {2}?
p Is it necessary to {1} first and {2} later?
p Can I {2} without doing this beforehand: {1}?
n Do I have to {2} before I {1}?
n Who is going to {1} after I {2}?
- sand the floor / apply the varnish
- turn off the power / change the light switch
- prime the wall / paint over stains
- remove the old tiles / lay new ones
a The {1} makes {2} when {3}.
p When {3}, you hear {2} from the {1}.
p I notice {2} that comes from the {1} each time {3}.
n The {1} makes {2} except when {3}.
n The {1} makes no noise at all when {3}.
- boiler / a banging noise / the heating starts
- floorboard / a loud creak / someone steps on it
- fridge / a strange hum / the door is shut
- window / a whistling sound / the wind is strong
a We had {1} replaced by {2} since {3}.
p {3}, so {2} came and put in a new version of {1}.
p As {3}, we got {2} to exchange {1}.
n We replaced {1} ourselves, since {2} {4}.
n We had {1} cleaned by {2}, although {3}.
- the roof tiles / a local firm / many were cracked / wanted too much
- the front lock / a locksmith / the key snapped / had no time
- the kitchen lamp / an electrician / it kept flickering / never came
- the bathtub / two plumbers / the enamel was gone / were on strike
a {1} is cheaper than {2} but {3}.
p {2} costs more than {1}; on the other hand, {1} {3}.
p You pay less for {1} than for {2}, yet it {3}.
n {2} is cheaper than {1} but {3}.
n {1} costs as much as {2} and {4}.
- laminate / real wood / wears out sooner / lasts as long
- wall paint / tile / does not stand steam / stands steam well
- gravel / paving / gets into your shoes / stays in place
- a blind / a curtain / blocks less light / blocks as much light
a Keep {1} away from {2}, or {3}.
p {3} if {1} gets too near {2}.
p If {1} comes close to {2}, then {3}.
n Keep {1} close to {2}, or {4}.
n Even when {1} is near {2}, it does not happen that {3}.
- the paint thinner / open flames / it may catch fire / it will not work
- the ladder / the power line / someone will get a shock / it will not be steady
- the fresh plaster / direct heat / cracks will appear / it will stay wet
- wet cement / bare skin / you will get burns / it will not spread
a My {1} borrowed our {2} to {3}.
p Our {2} is with my {1}, who needed it to {3}.
p I let my {1} have our {2} for a while, to {3}.
n We borrowed the {2} of my {1} to {3}.
n My {1} returned our {2} without using it to {3}.
- neighbor / drill / put up shelves
- son / ladder / clean the gutters
- father-in-law / saw / cut firewood
- tenant / wheelbarrow / move some bricks
a Which {1} is right for {2}?
p I need a {1} that suits {2}; which do you advise?
p For {2}, what {1} would be a good choice?
n Which {1} was used for {2} in the old days?
n Which {1} would ruin {2}?
- glue / a broken chair leg
- screw / thin plasterboard
- paint / a damp cellar
- cleaner / natural stone
a The room was {1} until {2}.
p {2}, and that is when the room stopped being {1}.
p Only after this change did the room stop being {1}: {2}.
n The room was not {1} until {2}.
n The room is still {1}, although {2}.
- freezing / we insulated the wall
- gloomy / a second window was added
- noisy / we hung heavy curtains
- damp / the crack outside was sealed
a {1} should be done by {2}, not {3}.
p Leave {1} to {2} and do not let it be done by {3}.
p For {1} you want {2} rather than {3}.
n {1} should be done by {3}, not {2}.
n {1} may be done by {2} or {3} alike.
- electrical work / a trained person / an amateur
- moving the piano / four adults / two teenagers
- the roof inspection / an expert / the owner
- the final cleaning / the builders / the tenants
a We moved the {1} from {2} to {3} because {4}.
p The {1}, which used to be in {2}, is now in {3}, as {4}.
p Since {4}, the new place for the {1} is {3} and no longer {2}.
n We moved the {1} from {3} to {2} because {4}.
n The {1} stays in {2}, even though {4}.
- bookcase / the hall / the study / we kept bumping into it
- sofa / the window / the back wall / the sun bleached it
- freezer / the kitchen / the cellar / it was too loud
- crib / our room / the nursery / the baby sleeps through now
a It will take {1} to {2}.
p We will need {1} before we {3}.
p {1} is how long it will be until we {3}.
n It took us less than {1} to {2}.
n It will not take {1} to {2}, because somebody else already did so.
- two weekends / repaint the whole house / have repainted the whole house
- a full day / put the wardrobe together / have the wardrobe assembled
- about a month / finish the extension / are done with the extension
- ten minutes / change the filter / have swapped the filter
a {1} forgot to {2}, and now {3}.
p Now {3}, because {1} did not remember to {2}.
p {3}: it happened as {1} failed to {2}.
n {1} remembered to {2}, but now {3} anyway.
n {1} forgot that somebody had asked us not to {2}.
- the painter / cover the carpet / there are spots all over it
- someone / close the skylight / the attic is wet
- Dad / mark the studs / the shelf hangs on nothing
- the tenant / bleed the radiators / half of them stay cold
a Please {1} the {2} {3}.
p Could you {1} the {2} {3}?
p I would be grateful if the {2} {4} {3}.
n Please do not {1} the {2} {3}.
n Who is it that has to {1} the {2} {3}?
- tighten / loose handle / on the balcony door / were tightened
- replace / dead bulb / above the stairs / could be changed
- repair / torn screen / before mosquito season / got fixed
- sweep / chimney / ahead of winter / were swept
a {1} fits in {2}, but not in {3}.
p There is room for {1} in {2} but none in {3}.
p While {3} is too small for {1}, {2} is big enough.
n {1} fits in {3}, but not in {2}.
n {1} fits neither in {2} nor in {3}.
- the wide bed / the guest room / the attic
- the dining table / the kitchen / the alcove
- our van / the carport / the garage
- the corner bench / the sun room / the hall
a cause of {1}
p Behind {1} there is often {2}.
p If you have {1}, {2} is a likely reason.
n {1} cannot come from {2}.
n {2} is a good cure for {1}.
- mold in the bathroom / poor airing
- low water pressure / a clogged filter
- flickering lights / a loose wire
- cracks above a door / the house settling
a The shelf will hold {1}, provided that {2}.
p As long as {2}, the shelf can carry {1}.
p If it is the case that {2}, you can put {1} on the shelf.
n The shelf will not hold {1}, even if {2}.
n The shelf used to hold {1}, but it no longer does.
- thirty kilos / you use longer screws
- all the cookbooks / it is fixed to brick
- the aquarium / two more brackets are added
- the old radio / nobody leans on it

# gardening
a Water {1} {2}, but {3}.
p {1} should get water {2}; however, {3}.
p Give {1} a drink {2}, though {3}.
n Water {1} {4}, and {3}.
n Stop watering {1} {2}.
- the tomatoes / in the morning / keep the leaves dry / late in the evening
- the orchid / once a week / never let it stand in water / three times a day
- young trees / during dry spells / do it slowly / only when it rains
- the cactus / sparingly / use soft water / generously
a {1} planted {2} where {3}.
p In the place where {3}, {1} put {2} into the soil.
p {2} now grow in the spot where {3}, thanks to {1}.
n {1} dug up {2} where {3}.
n {1} planted no {2} where {3}.
- my aunt / roses / the old shed stood
- the school / bean rows / there used to be lawn
- the city / lime trees / cars were parked before
- our tenant / herbs / the morning sun falls
a When should I {1}?
p What is the right time to {1}?
p I have never had to {1} before; which season is best?
n How should I {1}?
n Why should I never {1}?
- prune the apple tree
- sow carrots
- divide the peonies
- bring in the lemon tree
a {1} grow better in {2} than in {3}.
p {3} suits {1} less well than {2}.
p For {1}, choose {2} rather than {3}.
n {1} grow better in {3} than in {2}.
n {1} grow in neither {2} nor {3}.
- blueberries / acid soil / chalky ground
- ferns / shade / bright sun
- chili plants / a greenhouse / an open bed
- carrots / loose sand / heavy clay
a {1} ate {2} overnight, so {3}.
p {3} because during the night {2} fell victim to {1}.
p {2} had been eaten by {1} by the next morning, and therefore {3}.
n {1} left {2} alone overnight, so {4}.
n {1} had eaten {2} before, but last night {4}.
- slugs / the lettuce / I put up a copper ring / nothing was damaged
- deer / the tulips / we are building a fence / they stayed away
- caterpillars / the cabbage leaves / I am buying a net / there were none
- mice / the pea seeds / she sowed new ones / all was well
a how to keep {1} away from {2}
p To protect {2} from {1}, {3}.
p {3} and {1} will leave {2} in peace.
n To lure {1} to {2}, {4}.
n Most {1} never go near {2} in the first place.
- birds / cherries / hang a net over the tree / put out some seed
- cats / flower beds / scatter coffee grounds / plant catnip
- ants / garden chairs / dust the legs with chalk / spill some syrup
- moles / the lawn / put noisy stakes in the ground / let worms thrive
a {1} is ready to pick when {2}.
p You can harvest {1} as soon as {2}.
p Once {2}, it is time to gather {1}.
n {1} is past its best when {2}.
n Pick {1} before {2}.
- sweet corn / the silk turns brown
- a pumpkin / the skin is hard
- garlic / half the leaves are dry
- rhubarb / the stalks are thick and red
a We dug {1} to {2}.
p So as to {2}, we made {1}.
p {1} was dug by us because we wished to {2}.
n We filled in {1} to {2}.
n We wanted to dig {1} to {2} but gave up.
- a small pond / attract frogs
- a ditch / drain the meadow
- a deep hole / bury the old stump
- a long trench / lay a water pipe
a {1} died because {2}, not because {3}.
p What killed {1} was not that {3}, but that {2}.
p The reason why {1} died is that {2}; it has nothing to do with the claim that {3}.
n {1} died because {3}, not because {2}.
n {1} survived even though {2}.
- the hedge / the roots rotted / it was too cold
- the basil / I forgot it on the sill / bugs attacked it
- the pear tree / lightning hit it / it was old
- the grass / the dog dug it up / nobody watered it
a Can {1} survive {2}?
p Will {2} kill {1}?
p Is {1} hardy enough to get through {2}?
n Can {1} cause {2}?
n How did {1} look before {2}?
- this palm / a frosty winter
- lavender / a wet autumn
- an olive tree / a week without water
- a young vine / strong wind
a Mix {1} with {2} in order to {3}.
p To {3}, blend {2} into {1}.
p If you want to {3}, combine {1} and {2}.
n Do not mix {1} with {2} if you want to {3}.
n Separate {1} from {2} in order to {3}.
- compost / sand / make the soil drain well
- grass cuttings / dry leaves / get good compost
- wood ash / soil / feed the roses
- seed / fine earth / spread it evenly
a {1} bloom {2}, while {3} bloom {4}.
p {3} flower {4}; with {1} it is {2}.
p The flowers of {1} open {2} and those of {3} {4}.
n {3} bloom {2}, while {1} bloom {4}.
n {1} and {3} both bloom {2}.
- snowdrops / in February / asters / in autumn
- crocuses / early / dahlias / late
- poppies / for a few days / geraniums / all summer
- evening primroses / at night / sunflowers / by day
a I {1} my {2} with {3} every {4}.
p Every {4} I use {3} to {1} my {2}.
p Each {4} I take {3} and {1} my {2} with it.
n I {1} my {2} with {3} just once and not every {4}.
n I {1} my {2} every {4}, but never with {3}.
- feed / lemon tree / liquid fertilizer / fortnight
- cut / lawn / a hand mower / Saturday
- spray / rose bush / soapy water / spring
- cover / fig tree / old blankets / winter
a The neighbor's {1} {2}, and {3}.
p {3}, because next door there is a {1} that {2}.
p Next door they have a {1} which {2}; {3}.
n Our {1} {2}, and the neighbors complain.
n The neighbor's {1} no longer {2}, but {3}.
- tree / shades our patio / we asked him to trim it
- hedge / grows over the path / walkers get wet
- compost heap / smells awful / we keep the windows shut
- sprinkler / hits our car / I wash it less often
a {1} need {2} and {3}.
p What {1} require is {2}, plus {3}.
p {2} along with {3}: {1} cannot do without these.
n {1} need {2} but no {4}.
n {1} need neither {2} nor {3}.
- strawberries / full sun / a layer of straw / layer of straw
- cucumbers / plenty of water / a trellis / trellis
- mushrooms / a dark corner / constant moisture / constant moisture
- bonsai trees / regular pruning / a shallow pot / shallow pot
a We {1} our own {2} and {3}.
p The {2} that we eat come from our own plot, and we {3}.
p {2} are something we produce ourselves, and we {3}.
n We buy all our {2} and {3}.
n We {1} our own {2} but never {3}.
- grow / potatoes / give some to friends
- raise / seedlings / swap them at the market
- cultivate / berries / freeze what is left
- plant / herbs / dry them for tea
a Which plants {1}?
p I need plants that {1}; what can you suggest?
p Name some plants that {1}.
n Which plants never {1}?
n Which animals eat the plants that {1}?
- cope with deep shade
- attract butterflies
- keep mosquitoes away
- thrive on a windy balcony
a {1} turned {2} after {3}.
p After {3}, the color of {1} changed: now it is {2}.
p {3} made {1} go {2}.
n {1} had turned {2} before {3}.
n {1} stayed as it was after {3} and did not turn {2}.
- the lawn / brown / two weeks of drought
- the ivy / red / the first cold nights
- the pond / green / some hot days
- the hydrangea / blue / a change of soil
a Do not {1} near {2}; {3}.
p {3}, so it is a bad idea to {1} close to {2}.
p You should not {1} in the area around {2}, because {3}.
n Please {1} near {2}; {4}.
n You may {1} near {2}, but then {4}.
- dig / the fence / there is a cable / there is no cable
- plant beans / onions / they harm each other / they help each other
- mow / the meadow edge / bees nest there / it looks untidy
- spray / the well / we drink that water / nobody drinks that water

# pets
a My {1} is afraid of {2}, so {3}.
p My {1} gets scared by {2}; therefore {3}.
p {3}, given that my {1} panics because of {2}.
n My {1} likes {2} a lot, so {4}.
n My {1} is no longer afraid of {2}, so {4}.
- dog / thunder / we leave the radio on / we turn the radio off
- cat / the vacuum cleaner / I sweep when she is in / I vacuum when she is in
- parrot / strangers / guests stay in the kitchen / guests may come close
- pony / plastic bags / we ride through the woods / we ride past the dump
a How often should {1} be {2}?
p At what intervals does {1} have to be {2}?
p I own {1}; how many times a month should it be {2}?
n Why must {1} never be {2}?
n How long ago was {1} last {2}?
- a rabbit / brushed
- a fish tank / cleaned
- a puppy / wormed
- a snake / fed
a {1} chased {2} {3}.
p {2} had to run from {1} {3}.
p {3} I saw {2} being chased by {1}.
n {2} chased {1} {3}.
n {1} played peacefully with {2} {3}.
- our terrier / the mailman / down the street
- a black cat / two pigeons / across the yard
- the goose / a little boy / around the pond
- the kitten / the old dog / under the table
a The vet says {1} has {2} and needs {3}.
p {1} needs {3} since, according to the vet, it has {2}.
p According to the vet, {2} is what {1} has, so {3} is called for.
n The vet says {1} does not have {2}, so it needs no {4}.
n The vet says {1} has {2} because of {3}.
- our hamster / an infected tooth / antibiotics / antibiotics
- the mare / a swollen leg / two weeks of rest / rest
- the tomcat / kidney trouble / a special diet / diet
- the budgie / mites / a spray / spray
a Can you look after {1} while we {2}?
p We need someone to take care of {1} during the time that we {2}; could it be you?
p Would you mind having {1} when we {2}?
n Can we look after {1} while you {2}?
n Can you give back {1} before we {2}?
- our cat / are in Spain
- the guinea pigs / visit my parents
- my old beagle / move to the new flat
- the chickens / take a long weekend
a {1} weighs {2} than {3}.
p Put both on the scale and {1} turns out {4} than {3}.
p {3} is {5} than {1}.
n {3} weighs {2} than {1}.
n {1} weighs exactly as much as {3}.
- the puppy / more / its mother / heavier / lighter
- our turtle / less / the neighbor's / lighter / heavier
- the male / much more / the female / far heavier / far lighter
- the gray cat / a kilo less / the white one / lighter by a kilo / a kilo heavier
a how to train {1} to {2}
p {1} will learn to {2} if you {3}.
p {3}, and before long {1} will {2}.
n {1} will refuse to {2} if you {3}.
n If you {3}, you teach {1} not to {2}.
- a puppy / come when called / reward each success
- a cat / use a scratching post / rub catnip on it
- a horse / load calmly / practice in short steps
- a parrot / step onto your hand / offer a nut each time
a We adopted {1} from {2} after {3}.
p After {3}, {2} gave us {1} to live with us.
p {1} came to us from {2}; this was after {3}.
n We gave up {1} to {2} after {3}.
n We wanted to adopt {1} from {2}, but it was gone after {3}.
- a blind dog / a shelter / a long talk
- two kittens / a farm / our old cat died
- a retired racehorse / a trainer / a trial week
- a rabbit / a school / the term ended
a {1} may not eat {2}, since {3}.
p Never give {2} to {1}, because {3}.
p {3}, so {2} is off limits for {1}.
n {1} may eat {2}, although many think that {3}.
n {1} should eat more {2}, even if {3}.
- dogs / chocolate / it is poisonous for them
- rabbits / potato peel / it upsets their stomach
- parrots / avocado / it can kill them
- horses / fresh bread / they get colic
a Our {1} sleeps {2} and {3}.
p {2} is where our {1} spends the night; it also {3}.
p At night our {1} lies {2}, and it {3}.
n Our {1} never sleeps {2} but {3}.
n Our {1} sleeps {2} and no longer {3}.
- dog / at the foot of the bed / snores loudly
- cat / on the warm laptop / purrs all night
- ferret / in an old hat / steals socks
- goat / under the porch / wakes up at five
a {1} lost {2} near {3}; please {4}.
p Please {4} if you can help: {2} got away from {1} near {3}.
p {2} ran off near {3} and {1} wants it back, so please {4}.
n {1} found {2} near {3}; please {4}.
n {1} lost {2} near {3} but it is back, so there is no need to {4}.
- a girl / a gray parrot / the station / call this number
- a farmer / a brown dog / the reservoir / check your sheds
- an old man / his cat / the bakery / ring the bell
- my aunt / a tortoise / the playground / look under hedges
a {1} is calmer than {2} {3}.
p {3}, {2} is wilder than {1}.
p {2} does not stay as calm as {1} {3}.
n {2} is calmer than {1} {3}.
n {1} gets just as nervous as {2} {3}.
- the brown mare / the white one / on busy roads
- our new dog / the old one / around children
- the younger cat / its brother / at the vet
- this parrot / that one / with strangers in the room
a Why does my {1} {2}?
p What makes my {1} {2}?
p My {1} tends to {2}, and I wonder about the cause.
n When did my {1} stop doing this, namely to {2}?
n How can I make my {1} {2} more often?
- dog / eat grass
- cat / bring mice indoors
- hamster / bite the bars
- goldfish / float upside down
a The {1} ran away because {2}.
p {2}, and so the {1} escaped.
p {2}: that is how the {1} got out.
n The {1} did not run away, although {2}.
n The {1} ran away, but not because {2}.
- rabbit / someone left the hutch open
- horse / a firework went off
- dog / the leash snapped
- hen / the fence had a hole
a This food is for {1} and contains {2}.
p {1} can have this food, which was made with {2}.
p With {2} in it, this food is made for {1}.
n This food is not for {1}, as it contains {2}.
n This food is for {1} and contains no {2}.
- older cats / extra fish oil
- large dogs / dried lamb
- young birds / ground shells
- sick rabbits / added vitamins
a {1} barks {2}, which {3}.
p {2} you can hear the barking of {1}, and this {3}.
p The barking of {1} {2} {3}.
n {1} never barks {2}, which {3}.
n {1} sleeps {2}, which {3}.
- the dog upstairs / at dawn / annoys everyone
- our puppy / in the car / makes driving hard
- the guard dog / all night / scares burglars
- her poodle / during calls / amuses the team
a Are {1} good pets for {2}?
p Would you advise {2} to keep {1}?
p I wonder if {1} suit {2} as pets.
n Are {1} bad at living with other {1}?
n Why are {2} not allowed near {1}?
- rats / small children
- parrots / people who work all day
- lizards / beginners
- huskies / families in flats
a {1} and {2} get along, but {3}.
p There is peace between {1} and {2}, even if {3}.
p {3}; apart from that, {1} and {2} are friends.
n {1} and {2} do not get along, and {3}.
n {1} and {2} used to get along, but they no longer do.
- our cat / the puppy / they eat apart
- the two males / the old female / there is some growling
- the ducks / the dog / he must be on a leash
- the donkey / the sheep / it steals their hay
# shopping
a The {1} I ordered {2} arrived {3}.
p {2} I placed an order for a {1}, and it came {3}.
p My {1}, ordered {2}, was {3} when it got here.
n The {1} I returned {2} had arrived in good shape.
n The {1} I ordered {2} never arrived.
- lamp / on Monday / with a cracked shade
- coat / two weeks ago / in the wrong size
- teapot / from the catalog / without its lid
- blue rug / online / much darker than shown
a Where is my {1}? The {2} says {3}.
p According to the {2} it has {4}, but I cannot find my {1}.
p My {1} has not turned up, even though the {2} claims {3}.
n My {1} has turned up, although the {2} says {5}.
n Where can I buy a {1}? The {2} says nothing about it.
- parcel / tracking page / it was delivered / been handed over / it is lost
- refund / last email / it was sent / been paid out / it was denied
- replacement charger / courier / it was left at the door / been dropped off / it is on back order
- gift card / app / it was activated / gone live / it is blocked
a Can I return {1} if {2}?
p In case {2}, is it possible to send back {1}?
p Suppose {2}: would you take back {1}?
n Can I keep {1} if {2}?
n Can I order {1} again after {2}?
- shoes / I have worn them once
- a mattress / it turns out too soft
- sale items / the zip breaks
- a dress / I have lost the receipt
a {1} costs {2} in {3} and {4} in {5}.
p In {5} you pay {4} for {1}, in {3} {2}.
p The price of {1} is {2} if you get it in {3}, but {4} in {5}.
n {1} costs {4} in {3} and {2} in {5}.
n {1} costs {2} in both {3} and {5}.
- this backpack / sixty dollars / the store / forty / the web shop
- a kilo of cherries / eight euros / the supermarket / five / the market
- the same jacket / ninety / the mall / seventy / the outlet
- the board game / thirty / the toy shop / ten / the thrift store
a I would like to exchange {1} for {2}.
p Please take back {1} and give me {2} instead.
p {2} would suit me better than {1}; could we swap?
n I would like to exchange {2} for {1}.
n I would like to buy {1} together with {2}.
- this shirt / a larger one
- the green mug / the white one
- two single tickets / a family pass
- the wired mouse / a wireless model
a Shipping is free {1}, otherwise {2}.
p {1} you pay nothing for delivery; in all other cases {2}.
p Delivery costs nothing {1}, but if that does not apply {2}.
n Shipping is never free {1}; in fact {2}.
n Shipping is free in every case except {1}.
- for orders above fifty dollars / we add four dollars
- within the city / the rate depends on weight
- for members / it costs six euros
- on the first order / there is a flat fee
a how to {1}
p If you want to {1}, {2}.
p {2}; that is the way to {1}.
n You can no longer {1}, even if you {3}.
n Only the seller is allowed to {1}.
- cancel an order / press the cancel button before it ships / press the button
- find the right ring size / measure a ring that fits / measure a ring
- spot a fake review / look for vague praise and odd dates / look closely
- use a voucher online / type the code in at the last step / type it in
a {1} recommended {2}, but I bought {3}.
p Although {2} was suggested to me by {1}, {3} was what I took.
p I went for {3} in spite of {1} telling me to get {2}.
n {1} recommended {3}, but I bought {2}.
n {1} recommended {2}, so I did not buy {3}.
- the salesman / the bigger fridge / the small one
- a friend / hiking boots / light sneakers
- the leaflet / frozen berries / fresh ones
- my sister / a leather bag / one made of canvas
a The shop {1} {2}, so {3}.
p {3}, since the shop {1} {2}.
p {3}; the reason is a shop that {1} {2}.
n The shop {1} {2}, but nobody cares that {3}.
n The shop no longer {1} {2}, but it is still true that {3}.
- closes / at six / we have to hurry
- accepts / old phones / I took mine there
- gives / students a discount / many of them go there
- sells / just one brand / the choice is poor
a The seller {1} to {2}, because {3}.
p {3}, and for that reason the seller {1} to {2}.
p Why the seller {1} to {2} is easy to say: {3}.
n The seller {4} to {2}, although {3}.
n I {1} to {2}, because {3}.
- refused / give a refund / the box had been opened / agreed
- offered / cut the price / the table had a scratch / declined
- promised / send a new one / the first got lost / refused
- agreed / wait a week / my card was blocked / declined
a Do you have {1} in {2}?
p I am looking for {1}; do you sell it in {2}?
p Is {1} available in {2}?
n Why is {1} no longer made in {2}?
n Do you have {1} in anything other than {2}?
- this sweater / a medium
- the same model / dark blue
- olive oil / five-liter cans
- wrapping paper / larger sheets
a {1} stood in line {2} to buy {3}.
p In order to get {3}, {1} queued {2}.
p {1} waited {2} in a queue for {3}.
n {1} stood in line {2} to return {3}.
n {1} did not have to stand in line {2} to buy {3}.
- hundreds of people / overnight / the new console
- my parents / for an hour / fresh doughnuts
- the students / in the rain / cheap concert passes
- a young mother / for ages / a signed cookbook
a The {1} is made of {2}, not of {3}.
p What the {1} is made from is {2} rather than {3}.
p They did not use {3} for the {1}; it is {2}.
n The {1} is made of {3}, not of {2}.
n The {1} is made of {2} mixed with {3}.
- scarf / wool / cotton
- bracelet / silver / steel
- cutting board / bamboo / plastic
- jacket / fake leather / real hide
a {1} got the wrong {2} and wants {3}.
p {1} is asking for {3} after being sent the wrong {2}.
p {1} would like {3}, as the shop sent the wrong {2}.
n {1} got the right {2} but still wants {3}.
n {1} sent {3} after the wrong {2} had been delivered.
- a customer / book / her money back
- our school / chairs / a quick replacement
- the cafe / milk / a credit note
- Daniel / phone case / an apology
a It is {1} to buy {2} {3}.
p Buying {2} is {1} {3}.
p {3}, getting {2} is {1}.
n It is {4} to buy {2} {3}.
n It is {1} to buy {2}, but not {3}.
- cheaper / winter coats / in February / more expensive
- wiser / a used car / after a test drive / more foolish
- easier / concert tickets / by phone / harder
- riskier / perfume / from street sellers / safer
a The {1} includes {2} but not {3}.
p With the {1} you get {2}; {3} must be bought extra.
p {3} does not come with the {1}; you only get {2}.
n The {1} includes {3} but not {2}.
n The {1} includes both {2} and {3}.
- camera kit / a bag / a memory card
- crib / the slats / the mattress
- gift basket / cheese / wine
- starter set / brushes / paint
a I signed up for {1} by mistake; {2}.
p {2}, because I never meant to subscribe to {1}.
p My subscription to {1} was an accident, so {2}.
n I signed up for {1} on purpose; {3}.
n I cancelled {1} by mistake; {3}.
- the newsletter / please remove my address / please keep my address
- premium delivery / refund the fee / do not refund the fee
- a snack box / stop the next shipment / send the next shipment
- the loyalty plan / delete my data / keep my data
a They {1} the {2} {3} after many {4}.
p Following a lot of {4}, the {2} {5} {3}.
p Many {4} came in, and {3} the {2} {5}.
n They {1} the {2} {3} without any {4}.
n After many {4} they refused to act, and the {2} never {5}.
- withdrew / toy / last month / complaints / was taken off sale
- improved / app / in spring / requests / was made better
- renamed / soap / this year / jokes / was given another name
- lowered / price / at once / protests / was cut
a Is {1} worth {2}?
p Would you pay {2} for {1}?
p Does {1} give you good value for {2}?
n Is {1} sold for less than {2}?
n How did {1} come to cost {2}?
- the extra warranty / thirty dollars
- a handmade quilt / four hundred
- this robot mop / the high price
- the club card / ten euros a year

# technology
a My {1} {2} after {3}.
p After {3}, my {1} {4}.
p {3}, and from then on my {1} {4}.
n My {1} {2} until {3}.
n My {1} worked fine after {3}.
- laptop / will not start / the last update / refuses to boot
- phone / runs out of power fast / a drop on the tiles / drains its battery quickly
- tablet / shows no picture / a night in the cold car / has a black screen
- router / keeps restarting / a power cut / reboots over and over
a How do I {1} on {2}?
p What are the steps to {1} on {2}?
p I would like to {1} on {2}, but I do not know how.
n Why does {2} {1} on its own?
n How do I keep others from trying to {1} on {2}?
- change the font / my reader
- turn off alerts / a smart watch
- scan a document / this printer
- share the screen / a work laptop
a {1} deleted {2} by accident, but {3}.
p {2} got erased by {1}, which was not meant to happen; still, {3}.
p Without wanting to, {1} removed {2}; however, {3}.
n {1} deleted {2} on purpose, although {3}.
n {1} saved {2} by accident, and {4}.
- my son / all the photos / we had a backup / nobody noticed
- a coworker / the shared folder / it can be restored / it is still there
- someone / the guest list / I have a printout / that was lucky
- Carla / an important email / it was in the trash / that was lucky
a You must {1} before {2}.
p {2} only works once you {1}.
p First {1}; after that, {2} is possible.
n You must not {1} before {2}.
n You must {1} after {2}.
- restart the computer / installing the driver
- unplug the cable / opening the case
- confirm your email / logging in
- close all programs / shutting down the laptop
a {1} is faster than {2}, yet {3}.
p {2} is slower than {1}; still, {3}.
p In speed {1} beats {2}, even though {3}.
n {2} is faster than {1}, yet {3}.
n {1} is no faster than {2}, and {3}.
- the new tablet / the old one / its screen is dull
- cable internet / mobile data / the price is steep
- this browser / the other / it eats memory
- the external drive / the cloud / it can get lost
a reset {1} without {2}
p {3}, and {1} will be reset even if you lack {2}.
p Even without {2} you can reset {1}: {3}.
n {1} cannot be reset unless you have {2}.
n If you reset {1}, you will get {2} back.
- a tablet / the passcode / hold both side buttons for ten seconds
- an online account / the old email / answer the security questions
- a router / a computer / push a pin into the small hole
- a smart lock / the app / take out the batteries and press the dial
a The app {1} my {2} although I {3}.
p Even though I {3}, my {2} is something the app {1}.
p I {3}; the app still {1} my {2}.
n The app {1} my {2} because I {4}.
n The app never {1} my {2}, although I {4}.
- tracks / location / turned it off / allowed it
- forgets / password / ticked the box / wanted it to
- reads / contacts / did not agree / agreed to it
- shows / birthday / made it private / hid nothing
a {1} sent {2} to {3} by mistake.
p {3} got {2} from {1}, though it was meant for someone else.
p It was an error that {2} went from {1} to {3}.
n {3} sent {2} to {1} by mistake.
n {1} meant to send {2} to {3} but forgot.
- the office / a private file / all customers
- Julia / a love letter / her boss
- the system / a test message / every parent
- a trainee / the price list / a rival firm
a Is it safe to {1}?
p Could it be risky to {1}?
p Do I put my data at risk if I {1}?
n How long does it take to {1}?
n Was it you who wanted to {1}?
- use public wireless at the airport
- save card details in a web shop
- open a zip file from a stranger
- charge a phone at a public port
a The {1} does not {2} unless you {3}.
p Only if you {3} will the {1} {2}.
p You have to {3}, or else the {1} will not {2}.
n The {1} does not {2} if you {3}.
n The {1} will {2} even if you do not {3}.
- speaker / turn on / press twice
- camera / focus / clean the lens
- scanner / respond / replug the cable
- light / dim / update the app
a We {1} from {2} to {3} to {4}.
p In order to {4} we gave up {2} and now use {3}.
p {3} took the place of {2} here, as we wanted to {4}.
n We {1} from {3} to {2} to {4}.
n We stayed with {2} instead of {3} to {4}.
- switched / paper forms / an online tool / save time
- changed / our first provider / a local one / get a better signal
- moved / our own server / rented space / cut costs
- went / passwords / fingerprints / be more secure
a The screen {1} when I {2}.
p Whenever I {2}, the screen {1}.
p If I {2}, then the screen {1}.
n The screen no longer {1} when I {2}.
n The screen {1} unless I {2}.
- freezes / open two videos
- flickers / plug in the charger
- goes dark / tilt the lid
- turns green / start the game
a Can two people {1} at the same time?
p Is it possible for more than one person to {1} simultaneously?
p Would it work if a second person and I {1} at once?
n Can two people {1} one after the other?
n Why must only one person {1} each time?
- edit this file
- use one streaming login
- join the call from one device
- control the drone
a {1} fixed {2} by {3}.
p By {3}, {1} got {2} to work again.
p {2} works again since {1} solved the problem by {3}.
n {1} broke {2} by {3}.
n {1} could not fix {2} by {3}.
- the support team / my mailbox / clearing old mail
- her son / the game console / blowing out the dust
- a technician / the elevator panel / changing one chip
- our neighbor / the satellite dish / turning it a little
a {1} never updates {2}, which is why {3}.
p {3}, because {1} does not keep {2} up to date.
p The fact that {3} is due to {1} ignoring all updates of {2}.
n {1} always updates {2}, which is why {4}.
n {1} never updates {2}, but {4} nevertheless.
- my uncle / his phone / half the apps fail / all the apps work
- the library / its catalog / you see lost books in it / it is correct
- our club / the website / old dates are shown / new dates are shown
- the firm / its software / hackers got in / nobody got in
a Please {1} the {2}, as it {3}.
p The {2} {3}, so could you {1} it?
p It would be good to {1} the {2}, which {3}.
n Please do not {1} the {2}, even if it {3}.
n Whoever said that the {2} {3} was wrong, so there is no need to {1} it.
- mute / microphone / picks up the traffic
- replace / toner / is nearly empty
- lock / computer / holds private data
- lower / brightness / hurts my eyes
a Battery life is {1} on {2} than on {3}.
p {2} has a battery that lasts {4} than the one in {3}.
p {3} runs {5} on one charge than {2}.
n Battery life is {1} on {3} than on {2}.
n Battery life is the same on {2} and {3}.
- better / the gray model / the silver model / longer / for less time
- worse / my new phone / my old one / less long / longer
- shorter / a small drone / a large one / less long / longer
- greater / the paper-like reader / a color tablet / longer / for less time
a {1} without internet
p You can {1} offline if you {2}.
p No connection is needed to {1}, provided you {2}.
n You cannot {1} offline, even if you {2}.
n Your data volume is used up when you {1} online.
- use maps / save the area first
- play music / download your songs
- read the news / load the articles in the morning
- translate signs / install the language pack
a {1} bought {2} to {3}, not to {4}.
p The purpose for which {1} got {2} was to {3} rather than to {4}.
p {1} does not want to {4} with {2}; it was bought to {3}.
n {1} bought {2} to {4}, not to {3}.
n {1} sold {2}, as it could not {3}.
- grandma / a tablet / see photos / send mail
- the school / a drone / film the fair / win races
- my boss / a second screen / compare plans / watch games
- the farmer / a sensor / measure rain / open gates

# transport
a {1} {2} {3} late because of {4}.
p {4} caused {1} to come {3} behind schedule.
p There was a delay of {3} for {1}, and the reason was {4}.
n {1} {2} on time in spite of {4}.
n {1} {2} {3} early because of {4}.
- the night bus / arrived / half an hour / roadworks
- the express / came / fifty minutes / a signal fault
- tram nine / showed up / a quarter of an hour / a parked van
- the school bus / got here / ten minutes / a flat tire
a Does {1} stop at {2} {3}?
p {3}, can I get off {1} at {2}?
p I want to know if {2} is one of the stops of {1} {3}.
n Why did {1} not stop at {2} {3}?
n Does {1} start at {2} {3}?
- this tram / the hospital / on Sundays
- the airport train / the old town / after midnight
- bus forty / the stadium / on match days
- the ferry / the small island / in winter
a Change at {1} from {2} to {3}.
p You need to leave {2} at {1} and continue on {3}.
p At {1}, get off {2} and board {3}.
n Change at {1} from {3} to {2}.
n Stay on {2} at {1}; there is no need to take {3}.
- Market Square / the blue line / the red line
- the central station / the train / bus twelve
- North Bridge / the tram / the metro
- the harbor / the metro / the ferry
a Which {1} goes to {2}?
p I have to get to {2}; what {1} should I take?
p To reach {2}, which {1} do I need?
n Which {1} comes from {2}?
n When is the last {1} back from {2}?
- platform / the south coast
- bus / the garden center
- exit / the city hall
- tram / the university
a A {1} ticket is valid {2}, but not {3}.
p You can use a {1} ticket {2}; {3} it does not count.
p {3} a {1} ticket is of no use, while {2} it is fine.
n A {1} ticket is valid {3}, but not {2}.
n A {1} ticket is valid both {2} and {3}.
- day / on buses / on ferries
- group / after nine / before nine
- weekend / within the region / across the border
- child / up to age fourteen / for older teenagers
a {1} gave up the seat for {2}.
p {2} could sit down because {1} stood up.
p {1} rose so that {2} could have the seat.
n {2} gave up the seat for {1}.
n {1} did not want to give up the seat for {2}.
- a young man / an old lady
- the student / a pregnant woman
- a tired nurse / a boy on crutches
- our teacher / a small child
a {1} goes by {2} when {3}, otherwise by {4}.
p If {3}, {1} takes the {2}; at all other times the {4}.
p The {4} is what {1} takes, except when {3}: then it is the {2}.
n {1} goes by {4} when {3}, otherwise by {2}.
n {1} never goes by {2}, not even when {3}.
- my boss / bike / it is dry / car
- Clara / tram / her leg hurts / scooter
- the mayor / train / parliament meets / bus
- my father / taxi / it is late / metro
a how long from {1} to {2} by {3}
p By {3} the trip from {1} to {2} takes {4}.
p If you go by {3}, you will get from {1} to {2} in {4}.
n By {3} the fare from {1} to {2} is {5}.
n There is no {3} that goes from {1} to {2}.
- the airport / the center / train / twenty minutes / nine euros
- the station / the fairground / tram / a quarter of an hour / two dollars
- the mainland / the island / ferry / two hours / fifteen pounds
- the campus / the lake / bus / about forty minutes / three dollars
a The {1} was so {2} that {3}.
p {3}, so {2} was the {1}.
p It happened that {3}, for the {1} was very {2}.
n The {1} was not {2} at all, so it never came to the point that {3}.
n The {1} was {2}, but it did not happen that {3}.
- bus / crowded / we waited for another
- carriage / hot / a woman fainted
- ferry / slow / the cyclist overtook it along the shore
- driver / friendly / the whole bus thanked him
a I left {1} on {2}, and {3}.
p {3} after I had forgotten {1} on {2}.
p {1} stayed behind on {2} when I got off, and {3}.
n I found {1} on {2}, and {3}.
n I almost left {1} on {2}, but {4}.
- my umbrella / the tram / the driver kept it for me / I turned back
- a violin / the night train / it was gone / my wife reminded me
- the cake / the ferry / someone ate it / I noticed in time
- my keys / bus three / I had to wait outside / a boy shouted
a Trains to {1} run {2} {3}.
p {3} you can catch a train to {1} {2}.
p {2} there is a train bound for {1} {3}.
n Trains from {1} run {2} {3}.
n Trains to {1} do not run at all {3}.
- the north / every hour / on weekdays
- the beach / every ten minutes / in summer
- the capital / twice a day / outside the season
- the valley / once an hour / until eight
a The {1} {2} the {3} at {4}.
p At {4} the {3} was {5} by the {1}.
p The {3} was {5} at {4}, and it was the {1} that did it.
n The {3} {2} the {1} at {4}.
n The {1} nearly {2} the {3} at {4} but stopped in time.
- bus / hit / taxi / the roundabout / hit
- van / overtook / tram / the bridge / overtaken
- cyclist / passed / truck / the lights / passed
- truck / blocked / ambulance / the tunnel / blocked
a Do I need to {1} if I travel with {2}?
p When traveling with {2}, is it a must to {1}?
p I am taking {2} with me; do I have to {1}?
n Am I forbidden to {1} if I travel with {2}?
n Do I need {2} so that I can {1}?
- buy an extra ticket / a large dog
- reserve a spot / a bike
- pay more / two big suitcases
- board early / a stroller
a Parking {1} is {2} {3}.
p {3} you {4} if you park {1}.
p If your car stands {1} {3}, then you {4}.
n Parking {1} is {5} {3}.
n Parking {1} is {2} except {3}.
- at the station / free / on Sundays / pay nothing / expensive
- in Hill Street / forbidden / during school hours / break the rules / allowed
- behind the theater / half price / after eight / pay only half / full price
- by the beach / limited / in July / must leave after an hour / unlimited
a {1} cycles to {2} even if {3}.
p {3}? {1} still takes the bike to {2}.
p {1} rides to {2} by bike, and it makes no difference whether {3}.
n {1} does not cycle to {2} if {3}.
n {1} cycles home from {2} only if {3}.
- my dentist / work / it snows
- the priest / the chapel / the road is steep
- our daughter / school / all her friends take the bus
- the old lady / the market / her knees ache
a The line between {1} and {2} is closed {3}; {4}.
p {3} no trains can run from {1} to {2}; {4}.
p {4}, because the stretch from {1} to {2} is shut {3}.
n The line between {1} and {2} is open again {3}; {5}.
n There is no closure between {1} and {2} {3}.
- the zoo / the mall / until Friday / buses will run instead / the extra buses have ended
- Eastgate / the port / this weekend / please walk / you can ride by day
- the museum / the park / for repairs / use the ring line / use it as before
- Lakeside / the border / all month / expect crowds elsewhere / crowds are gone
a {1} missed {2} because {3}.
p {3}, so {2} left without {1}.
p {2} was gone before {1} got there, since {3}.
n {1} caught {2} although {3}.
n {1} missed {2}, but not because {3}.
- Tom / the early train / his alarm was off
- Maria / the ferry / there was a long queue
- Simon / the last tram / the film ran over
- Helen / the coach / her taxi got stuck
a Buy {1} {2}, or you will {3}.
p You will {3} if you do not get {1} {2}.
p To make sure you do not {3}, get {1} {2}.
n If you buy {1} {2}, you will {3}.
n There is no need to buy {1} {2}, as nobody will {3}.
- your ticket / before boarding / pay a fine
- a seat / weeks ahead / have to stand
- the pass / online / wait in line
- a sticker / at the border / be stopped by the police
# family
a {1} is getting married to {2} {3}.
p {3}, {1} and {2} will have their wedding.
p {2} and {1} are going to tie the knot {3}.
n {1} is getting divorced from {2} {3}.
n {1} is going to the wedding of {2} {3}.
- my cousin / a pilot / in June
- our neighbor / her first love / next weekend
- the baker / an old school friend / this autumn
- my best friend / someone from Peru / after Easter
a We are throwing a surprise party for {1}, so {2}.
p {2}, because {1} must not find out about the party that we are planning.
p A secret party for {1} is being planned; therefore {2}.
n {1} is throwing a surprise party for us, so {3}.
n We told {1} all about the party, so {3}.
- Grandpa / keep quiet / act surprised
- my wife / do not call the house phone / there is no secret
- the twins / park around the corner / let us play along
- our coach / meet at five in the shed / pretend we know nothing
a {1} looks more like {2} than like {3}.
p The likeness between {1} and {2} is greater than with {3}.
p {1} has not taken after {3} so much as after {2}.
n {1} looks more like {3} than like {2}.
n {1} looks like neither {2} nor {3}.
- the baby / its father / its mother
- my sister / our aunt / anyone else
- Leo / his grandfather / his dad
- their daughter / his side of the family / hers
a Could you pick up {1} from {2} {3}?
p Is it possible for you to collect {1} at {2} {3}?
p I need somebody to fetch {1} {3}, from {2}; can you do it?
n Could you drop off {1} at {2} {3}?
n Did you pick up {1} from {2} {4}?
- the kids / school / at three today / at three yesterday
- Grandma / the station / on Saturday / last Saturday
- the birthday cake / the bakery / before noon / on Monday
- my suit / the cleaners / tomorrow / last week
a {1} is {2} than {3} by {4}.
p There are {4} between {1} and {3}, with {1} being the {5} one.
p {3} was born {4} {6} {1}.
n {3} is {2} than {1} by {4}.
n {1} and {3} were born on the very same day.
- Ruth / older / Paul / three years / elder / after
- my dad / younger / my mom / six months / junior / before
- the princess / older / the prince / ten days / elder / after
- my stepbrother / younger / our cousin / eight years / junior / before
a gift ideas for {1}
p You could give {1} {2}.
p {2} would make a lovely present for {1}.
n {1} gave me {2} as a present.
n Whatever you do, do not give {1} {2}.
- a new father / a sling for carrying the baby
- grandparents / a framed family photo
- a teenage girl / a voucher for a climbing lesson
- newlyweds / a set of good knives
a {1} and {2} argued about {3} until {4}.
p {4}, and that ended the quarrel of {1} and {2} about {3}.
p The dispute over {3} between {1} and {2} went on till {4}.
n {1} and {2} agreed about {3} until {4}.
n {1} and {2} started to argue about {3} after {4}.
- my parents / my uncle / politics / dinner was served
- the boys / the girls / the front seat / Mom got in
- Eva / her sister / an old doll / they both cried
- the bride / the groom / the guest list / midnight came
a {1} named {2} after {3}.
p {2} got the name of {3}; this was the choice of {1}.
p {3} is the person for whom {1} named {2}.
n {1} named {3} after {2}.
n {1} did not want {2} to have the name of {3}.
- my brother / his first son / our grandfather
- the couple / their daughter / a singer
- my parents / my sister / the doctor who was there
- the farmer / the calf / his wife
a I cannot come to {1}, because {2}.
p {2}, so you will have to do {1} without me.
p I will miss {1}, as {2}.
n I can come to {1} after all, because {3}.
n I left {1} early, because {2}.
- the christening / my train was cancelled / another train is running
- your housewarming / I have a cold / my cold is gone
- the reunion / my boss needs me / my boss gave me leave
- the anniversary lunch / nobody can watch the baby / we found a sitter
a {1} taught {2} how to {3}.
p {2} learned from {1} how to {3}.
p It was {1} who showed {2} the way to {3}.
n {2} taught {1} how to {3}.
n {1} would not let {2} {3}.
- Grandpa / the girls / whistle
- my aunt / my cousin / drive a tractor
- the older twin / the younger one / tie laces
- Mom / our neighbor / knit socks
a We invited {1} to {2}, but only {3} came.
p Just {3} turned up at {2} although {1} had been asked to come.
p Of the {1} who were asked to {2}, no more than {3} appeared.
n We invited {3} to {2}, but {1} came.
n We invited {1} to {2}, and all of them came.
- forty guests / the barbecue / fifteen
- ten children / the birthday / two
- sixty relatives / the reunion / half
- eight couples / the dance night / three
a My {1} moved {2} when {3}.
p When {3}, my {1} went to live {4}.
p {3}, and my {1} therefore moved {2}.
n My {1} had moved {2} long before {3}.
n My {1} did not move {2}, although {3}.
- grandmother / in with us / the stairs got too hard for her / with our family
- daughter / abroad / she got a place at a college / in another country
- brother / back home / he lost his job / at home again
- parents / to the coast / they retired / by the sea
a {1} stays with {2} while {3} are at work.
p While {3} work, {2} looks after {1}.
p {2} minds {1} during the hours when {3} are at work.
n {2} stays with {1} while {3} are on holiday.
n {1} stays alone while {3} and {2} are at work.
- the toddler / a nanny / the parents
- our son / my mother-in-law / we
- the baby / her godmother / mom and dad
- little Ida / the neighbor / both of them
a Please do not tell {1} that {2}.
p {2}, but keep it from {1}, please.
p I am asking you to keep it a secret from {1}: {2}.
n Please tell {1} that {2}.
n {1} asked me not to tell you that {2}.
- Dad / I scratched the car
- the kids / we are going to the zoo
- my sister / her present is a bike
- Grandma / the vase broke
a Who is going to {1} at {2}?
p Has anybody offered to {1} when we have {2}?
p We still need a person to {1} at {2}; who will it be?
n Who did {1} at {2}?
n Why should nobody {1} at {2}?
- make a speech / the silver wedding
- take the pictures / the baptism
- bring salads / the family picnic
- dress up as a clown / the birthday party
a After {1}, {2} inherited {3}.
p {3} went to {2} following {1}.
p {2} came into possession of {3} through {1}.
n After {1}, {2} gave away {3}.
n After {1}, {2} had hoped to get {3} but received nothing.
- the death of an uncle / my husband / a vineyard
- her passing / the two nieces / all the jewelry
- the funeral / the church / his books
- years in court / the stepson / the farm
a {1} cried during {2}, since {3}.
p {3}, and so {1} was in tears during {2}.
p There were tears in the eyes of {1} during {2}, because {3}.
n {1} laughed during {2}, since {3}.
n {1} did not cry during {2}, although {3}.
- my father / the vows / he was so happy
- the little boy / the family photo / he was tired
- our aunt / the song / it was her late husband's favorite
- the bride / the dinner / her friends had come so far
a Every {1} we {2} with {3}.
p With {3} we {2}; it happens each {1}.
p It is our habit to {2} with {3} every {1}.
n This {1}, for once, we will not {2} with {3}.
n Every {1} we {2} without {3}.
- Sunday / have lunch / my in-laws
- winter / bake cookies / the neighbors' children
- evening / read a story / our daughter
- summer / rent a cabin / two other families
a {1} did not recognize {2} after {3}.
p After {3}, {1} had no idea who {2} was.
p {2} was like a stranger to {1} after {3}.
n {2} did not recognize {1} after {3}.
n {1} recognized {2} at once even after {3}.
- Monica / her own cousin / twelve years
- the dog / my brother / a year at sea
- the baby / her father / he had shaved his beard
- Aunt Vera / my brother / the haircut

# entertainment
a {1} sings {2} while {3} plays {4}.
p {3} is on {4} and {1} does the singing of {2}.
p With {3} playing {4}, {1} performs {2} as a singer.
n {3} sings {2} while {1} plays {4}.
n {1} sings {2} without {3}, who no longer plays {4}.
- Rita / old folk songs / her husband / the accordion
- the drummer / the chorus / his brother / the guitar
- a young tenor / the first aria / the orchestra leader / the violin
- my aunt / jazz tunes / a friend / the double bass
a The film was {1}, but {2}.
p Although {2}, I found the movie {1}.
p {2}; the picture as a whole, though, was {1}.
n The film was not {1}, although {3}.
n The book was {1}, but {3}.
- exciting / the ending made no sense / the ending was clever
- much too long / the actors were great / the story was good
- funny / we had seen the best scenes in the trailer / we had seen no trailer
- beautifully shot / the plot was thin / the plot was gripping
a Who {1} in {2}?
p I cannot remember the name of the person who {1} in {2}.
p Please tell me the person that {1} in {2}.
n Why did nobody like the person who {1} in {2}?
n Did the person who {1} in {2} get an award?
- played the villain / the pirate series
- played the piano / that silent movie
- hosted the quiz / the nineties
- danced the lead / the new ballet
a {1} has {2} tickets left for {3}.
p You can still get tickets for {3} at {1}: {2} of them are left.
p {2} tickets for {3} remain at {1}.
n {1} has no tickets left for {3}; all {2} are sold.
n {1} bought {2} tickets for {3}.
- the box office / twenty / the opening night
- the club / a few / the jazz trio
- the theater / eight / the matinee
- our school / some / the musical
a I {1} the {2} because {3}.
p {3}, and so I {1} the {2}.
p The reason that I {1} the {2} is simple: {3}.
n I did not like that you {1} the {2} because {3}.
n I {4} the {2}, even though {3}.
- stopped reading / novel / the hero annoyed me / kept on reading
- skipped / support act / I came late / stayed for
- recorded / final episode / I had to work / did not record
- bought / album / the lyrics moved me / did not buy
a songs about {1}
p I am looking for music whose theme is {1}.
p Can you name some songs that deal with {1}?
n I am tired of all these songs about {1}.
n I am looking for paintings whose theme is {1}.
- leaving home
- the moon
- lost friendship
- working in a factory
a The {1} starts at {2}, an hour {3} than {4}.
p At {2} the {1} begins, which is one hour {3} than {4}.
p Come at {2} for the {1}: that is an hour {3} than {4}.
n The {1} ends at {2}, an hour {3} than {4}.
n The {1} starts an hour {5} than {4} and ends at {2}.
- concert / seven / earlier / planned / later
- show / nine / later / last week / earlier
- reading / six / earlier / the poster says / later
- premiere / eight / later / usual / earlier
a {1} was {2} by {3} in {4}.
p In {4}, {3} {2} {1}.
p It was {3} who {2} {1} in {4}.
n {1} {2} {3} in {4}.
n {1} was never {2} by {3}, not even in {4}.
- the young actress / discovered / an elderly director / the seventies
- the magician / fooled / a child / his first show
- a famous pianist / replaced / a student / the second half
- the reporter / interviewed / the singer / a taxi
a You can {1} {2}, but you cannot {3}.
p It is possible to {1} {2}; what is not possible is to {3}.
p Nobody is able to {3}, although anyone can {1} {2}.
n You can {3}, but you cannot {1} {2}.
n You cannot {1} {2}, let alone {3}.
- rent / the movie online / own it on disc
- take / photos in the gallery / use a flash
- visit / the studio / meet the actors
- hear / the demo for free / download it
a {1} is based on {2}, although {3}.
p {2} inspired {1}, even if {3}.
p {3}, but the basis of {1} is {2}.
n {2} is based on {1}, and {4}.
n {1} has nothing to do with {2}, so {3}.
- the series / a true crime / the names were changed / the names are real
- this opera / an old legend / the ending is different / both end the same way
- the comic / a radio play / few people know it / everyone knows it
- her novel / letters from her aunt / it is set in space / it takes place on a farm
a {1} prefers {2} to {3} when {4}.
p When {4}, {1} would rather have {2} than {3}.
p {2}, not {3}, is what {1} picks when {4}.
n {1} prefers {3} to {2} when {4}.
n {1} likes {2} just as much as {3} when {4}.
- my wife / audiobooks / podcasts / she drives
- Dad / westerns / thrillers / he is ill
- the whole family / card games / television / the power is off
- Sophie / cartoons / the news / she eats breakfast
a The critics {1} {2}, but the audience {3} it.
p {2} was something the audience {3}, while the critics {1} it.
p Viewers {3} {2}, unlike the critics, who {1} it.
n The audience {1} {2}, but the critics {3} it.
n The critics {1} {2}, and so did the audience.
- hated / the musical / loved
- praised / the war film / ignored
- laughed at / the debut album / bought
- adored / the modern play / booed
a How do I {1} on {2}?
p I want to {1} on {2}; what is the technique?
p Could you show me the way to {1} on {2}?
n Who was the first to {1} on {2}?
n Why is it bad to {1} on {2}?
- tune the strings / a banjo
- play softer / the trumpet
- record my voice / a simple microphone
- change the reed / a clarinet
a {1} won {2} for {3}, not for {4}.
p It was {3} rather than {4} that earned {1} {2}.
p {1} was given {2} thanks to {3}; {4} had nothing to do with it.
n {1} won {2} for {4}, not for {3}.
n {1} was expected to win {2} for {3} but went home with nothing.
- the director / a prize / the editing / the script
- the band / a medal / their charity work / their music
- the poet / an award / her early work / the recent book
- our choir / first place / rhythm / volume
a {1} was postponed until {2} because {3}.
p Since {3}, {1} will not take place before {2}.
p {3}, so {1} was put off to {2}.
n {1} was brought forward to {2} because {3}.
n {1} was cancelled for good in {2} because {3}.
- the puppet show / March / the stage broke
- the film festival / autumn / money ran short
- the open-air concert / next week / a storm is coming
- the art sale / the new year / the painter fell ill
a I have seen {1} {2}, and {3}.
p {2} I have watched {1}, and {3}.
p {1}: I saw it {2}, and {3}.
n I have never seen {1}, but people say {4}.
n I have seen {1} {2}, but I remember nothing of it.
- this musical / five times / I still find it moving / it is moving
- the first season / twice / I know it by heart / it is long
- that documentary / once / it changed my view / it changes your view
- the ballet / with two casts / the second was better / it is dull
a The {1} has {2}, while the {3} has {4}.
p There {5} in the {1}, and in the {3} you get {4}.
p {4} can be found in the {3}; the {1} comes with {2}.
n The {3} has {2}, while the {1} has {4}.
n The {1} has {2}, and so does the {3}.
- book / a sad ending / film / a happy one / is a sad ending
- live version / a long drum solo / studio version / just a short one / is a long drum solo
- old cinema / one screen / new one / nine / is one screen
- small hall / better sound / big hall / more seats / is better sound
a {1} plays {2} {3} but hardly ever {4}.
p {3} you can hear {1} on {2}; it is rare to hear it {4}.
p {4} {1} almost never plays {2}; that mostly happens {3}.
n {1} plays {2} {4} but hardly ever {3}.
n {1} hardly ever plays {2}, either {3} or {4}.
- my neighbor / the flute / in the morning / at night
- Lucas / the organ / at church / at home
- the teacher / the harp / for friends / in public
- our niece / the drums / on weekends / on school days
a Is {1} suitable for {2}?
p May {2} watch {1} without worry?
p Would you let {2} see {1}?
n Is {1} boring for anyone except {2}?
n Was {1} made by {2}?
- the dragon film / five-year-olds
- this circus show / nervous people
- the haunted house / small kids
- that comedy / a church group

# neighborhood
a The {1} in our street {2}, so {3}.
p {3}, because the {1} in our street {2}.
p As the {1} in our street {2}, {3}.
n The {1} in our street no longer {2}, so {4}.
n The {1} in the next town {2}, but here {4}.
- streetlight / is broken / bring a flashlight / you can see well
- traffic / keeps growing / parents are worried / parents are relaxed
- playground / is being rebuilt / kids play in the yard / kids are back on the swings
- corner shop / shut down / we drive to the supermarket / we buy milk on foot
a {1} complained to {2} about {3}.
p {2} heard complaints about {3} from {1}.
p {3} led {1} to file a complaint with {2}.
n {2} complained to {1} about {3}.
n {1} thanked {2} for {3}.
- the tenants / the owner / the loud music
- a shopkeeper / the council / the new bins
- our neighbors / the police / the fireworks
- the old couple / the church / the early bells
a {1} collects {2} on {3}.
p {2} gets picked up by {1} on {3}.
p On {3}, {1} comes to take away {2}.
n {1} no longer collects {2} on {3}.
n {1} hands out {2} on {3}.
- the city / old paper / the first Tuesday of the month
- a scout group / scrap metal / Saturday
- the church / warm clothing / Sunday after the service
- the farm / food waste / weekday mornings
a Could you please {1}, because {2}?
p {2}, so I would ask you to {1}.
p Would you mind if I asked you to {1}? The point is that {2}.
n You need not {1}, because {3}.
n Thank you for offering to {1}, but {3}.
- turn down the music / my baby is asleep / my baby is awake anyway
- move your van / it blocks our gate / it is not in our way
- trim the branches / they scrape our window / they do not touch the window
- shut the lobby door / it gets cold inside / it is warm inside
a volunteer at {1}
p You can help out at {1} by {2}.
p {1} welcomes unpaid helpers for {2}.
n {1} pays its staff well for {2}.
n {1} has enough people for {2} and takes no more helpers.
- the animal rescue / walking dogs
- the food bank / sorting donations
- a care home / reading to residents
- the public library / fixing torn books
a {1} voted {2} {3}, since {4}.
p As {4}, the vote of {1} was {2} {3}.
p {4}; therefore {1} cast their votes {2} {3}.
n {1} voted {5} {3}, although {4}.
n {1} refused to vote on {3}, since {4}.
- the residents / against / the parking garage / it would cut down trees / for
- most owners / for / a new roof / the old one leaked / against
- two thirds of the town / for / the tram line / buses are slow / against
- the members / against / higher fees / the club is rich / for
a I found {1} near {2}; {3}.
p {3}: near {2} I came across {1}.
p Near {2} there was {1}, which I picked up; {3}.
n I lost {1} near {2}; {4}.
n Somebody saw {1} near {2} but left it there; {4}.
- a silver earring / the bus stop / the owner can call me / please call me
- a red scarf / the post office / it hangs on the railing now / please look out for it
- some keys / the chapel / I gave them to the guard / I cannot get in
- a small drone / the pond / it is in my garage / I want it back
a The {1} is between {2} and {3}.
p You will find {2} on one side of the {1} and {3} on the other.
p To the left and right of the {1} are {2} and {3}.
n The {1} is neither near {2} nor near {3}.
n {2} is right opposite the {1}, far away from {3}.
- library / the bank / the school
- clinic / a hotel / the fire station
- flower shop / the bridge / an old mill
- youth club / the rink / a bakery
a {1} helped {2} {3} after {4}.
p After {4}, {2} had {1} there to help {3}.
p {1} lent {2} a hand to {3} after {4}.
n {2} helped {1} {3} after {4}.
n {1} did not help {2} {3} after {4}.
- the students / the widow / clear her yard / the flood
- a neighbor / my roommates / carry the sofa / work
- firefighters / the school / dry the gym / the pipe burst
- my son / the old man / get home / his fall
a When is {1} open?
p What are the opening hours of {1}?
p At what times can people go to {1}?
n Why is {1} not open?
n When was {1} opened for the first time?
- the recycling yard
- the town hall
- the outdoor pool
- the local museum
a {1} lives {2} {3}.
p You will find the home of {1} {2} {3}.
p {1} has a home {2} {3}.
n {1} used to live {2} {3} but moved out.
n {1} works {2} {3} but lives elsewhere.
- a retired judge / across from / the pharmacy
- my ex-boss / above / the bike shop
- the carpenter / right behind / the church
- her friend / next door to / the police station
a We want {1} instead of {2}, as {3}.
p Since {3}, people here would like {1} rather than {2}.
p {3}; that is why {2} is not what we want, but {1}.
n We want {2} instead of {1}, as {4}.
n We got {1} instead of {2}, although {4}.
- a park / a parking lot / children need space / cars need space
- a speed bump / a sign / no one reads signs / bumps are loud
- a market / another mall / local farmers would profit / a roof keeps rain off
- benches / flower tubs / older people need rest / flowers look nice
a {1} rents {2} from {3}.
p {3} rents out {2} to {1}.
p {2} belongs to {3}, and {1} pays rent for it.
n {3} rents {2} from {1}.
n {1} bought {2} from {3}.
- a nurse / the attic flat / the dentist
- the band / a garage / my grandmother
- our club / the meadow / the town
- a student / two rooms / a retired couple
a Since {1}, {2} has been {3}.
p {2} became {3} when {1} and is so to this day.
p From the moment that {1}, {2} has been {3}.
n Until {1}, {2} was {3}.
n Even after {1}, {2} was not {3}.
- the bypass opened / our village / quiet
- the mill closed / the main street / empty
- the students came / the quarter / lively
- the cameras were put up / the underpass / safer
a {1} is looking for {2} to {3}.
p {2} is wanted by {1} to {3}.
p Who can {3}? {1} needs {2} for that.
n {1} has found {2} to {3}.
n {1} no longer wants {2} to {3}.
- the choir / a deep voice / sing at the fair
- a family / a sitter / mind two boys
- the association / a treasurer / manage the dues
- our street / a host / hold the summer dinner
a A {1} broke out {2}, but {3}.
p When a {1} started {2}, {3}.
p {2} there was a {1}; luckily or not, {3}.
n No {1} broke out {2}, so {4}.
n A {1} nearly broke out {2}, and {4}.
- fire / in the paint shop / nobody was hurt / people stayed calm
- fight / outside the bar / it ended fast / it was a normal night
- panic / at the fair / the guards calmed people / everyone had fun
- strike / at the depot / two buses still ran / all buses ran
a It is not {1} to {2} {3}.
p You are not supposed to {2} {3}.
p {3}, nobody should {2}.
n It is {1} to {2} {3}.
n It used not to be {1} to {2} {3}, but now it is.
- allowed / feed the ducks / in the park
- polite / ring the bell / after ten
- legal / park a trailer / on the sidewalk
- permitted / swim / in the reservoir
a {1} donated {2} to {3}.
p {3} received {2} as a gift from {1}.
p Thanks to {1}, {3} now has {2}.
n {3} donated {2} to {1}.
n {1} sold {2} to {3}.
- a farmer / ten sacks of potatoes / the shelter
- the widow / her piano / the youth center
- the brewery / a new van / the fire brigade
- our class / old toys / the hospital

# nature
a {1} hunt {2} at {3}.
p At {3}, {2} fall prey to {1}.
p {2} are caught by {1} at {3}.
n {2} hunt {1} at {3}.
n {1} hide from {2} at {3}.
- owls / mice / night
- bats / moths / dusk
- foxes / rabbits / dawn
- herons / frogs / low tide
a You should never {1} when you {2}.
p If you {2}, it is wrong to {1}.
p When you {2}, whatever you do, do not {1}.
n You should always {1} when you {2}.
n You can safely {1} unless you {2}.
- run / meet a bear
- shelter under a tree / hear thunder
- touch the young / find a bird nest
- leave the trail / walk in the dunes
a how to tell {1} from {2}
p {1} {3}, while {2} do not; that is how you tell them apart.
p You can see the difference between {1} and {2} from this: {1} {3}.
n {2} {3}, unlike {1}.
n There is no way to tell {1} from {2}, since both {3}.
- crows / rooks / have black beaks
- frogs / toads / have smooth skin
- wasps / bees / have a narrow waist
- alligators / crocodiles / have a rounded snout
a The {1} is {2} than the {3} but {4}.
p The {3} is less {5} than the {1}, which is, however, {4}.
p Though {4}, the {1} beats the {3} at being {5}.
n The {3} is {2} than the {1} but {4}.
n The {1} is as {5} as the {3} and {4}.
- oak / taller / birch / slower to grow / tall
- river / wider / canal / not as deep / wide
- wolf / bigger / fox / much more shy / big
- east peak / higher / west peak / easier to climb / high
a {1} disappeared from {2} because of {3}.
p {3} drove {1} out of {2}.
p There are no more {1} in {2}, and {3} is to blame.
n {1} came back to {2} because of {3}.
n {1} did not disappear from {2} in spite of {3}.
- storks / the valley / drained wetlands
- salmon / the river / a dam
- bees / the orchards / pesticides
- beavers / the region / the fur trade
a Where do {1} {2}?
p I would like to know the place where {1} {2}.
p In which places do {1} {2}?
n When do {1} {2}?
n Why do {1} never {2}?
- swallows / spend the winter
- eels / lay their eggs
- hedgehogs / sleep by day
- squirrels / hide their nuts
a {1} feed on {2} and live {3}.
p Living {3}, {1} eat {2}.
p {3} you find {1}, which eat {2}.
n {2} feed on {1} and live {3}.
n {1} live {3} but never eat {2}.
- otters / fish / along clean rivers
- ladybirds / plant lice / in gardens
- woodpeckers / beetle grubs / in old forests
- starfish / mussels / on rocky shores
a We {1} {2} instead of {3} to {4}.
p To {4}, our choice was to {5} {2} and not {3}.
p Rather than {3}, we {1} {2}, so as to {4}.
n We {1} {3} instead of {2} to {4}.
n We {1} neither {2} nor {3}, as we did not want to {4}.
- use / glass jars / plastic bags / cut waste / use
- heat with / wood pellets / oil / lower emissions / heat with
- bought / rechargeable cells / cheap ones / protect nature / buy
- sowed / wild flowers / grass / help insects / sow
a {1} put {2} in the {3}, where {4}.
p {2} went into the {3}, where {4}; this was done by {1}.
p {1} threw {2} into the {3}; there, {4}.
n {1} took {2} out of the {3}, although {4}.
n {1} did not put {2} in the {3}, where {4}.
- my son / an old battery / paper bin / it does not belong
- the guest / food scraps / compost / worms eat them
- the clerk / green bottles / blue container / glass is collected
- our tenant / paint / drain / it harms the water
a The lake was {1} after {2}, so {3}.
p {3}, as {2} had left the lake {1}.
p {2} made the lake {1}; hence {3}.
n The lake was {1} before {2}, so {3}.
n The lake was not {1} after {2}, so {4}.
- polluted / the factory accident / bathing was banned / bathing went on
- clear / the opening of a treatment plant / divers came / everyone was glad
- low / a dry spring / boats lay on the mud / boats could sail
- full of algae / weeks of heat / the fish died / the fish lived
a {1} migrate {2} in {3} and return in {4}.
p In {3}, {1} move {2}; in {4} they are back.
p {1} leave and go {2} in {3}, and come home in {4}.
n {1} migrate {2} in {4} and return in {3}.
n {1} stay all year and do not migrate {2} in {3} or in {4}.
- geese / south / October / March
- whales / to cold waters / May / November
- reindeer / to the coast / spring / fall
- cranes / over the mountains / autumn / late winter
a {1} can {2} for {3} without {4}.
p Without {4}, {1} can still {2} for {3}.
p {1} need no {4} for {3} and yet they {2}.
n {1} cannot {2} for {3} without {4}.
n {1} can {2} only for {3}, even with {4}.
- camels / walk / a week / water
- seals / stay under / half an hour / air
- ticks / live / a year / food
- seeds of this plant / rest / decades / light
a A {1} crossed {2} right in front of {3}.
p Right before the eyes of {3}, a {1} went over {2}.
p {3} saw a {1} go across {2} just ahead.
n A {1} followed {3} along {2}.
n {3} crossed {2} right in front of a {1}.
- deer / the road / our car
- wild boar / the trail / the joggers
- snake / the path / the hikers
- moose / the runway / a small plane
a {1} planted trees on {2} to {3}.
p To {3}, trees were put in by {1} on {2}.
p {2} now has trees: {1} planted them to {3}.
n {1} cut down the trees on {2} to {3}.
n {1} planted trees on {2}, but this did not {3}.
- the villagers / the bare slope / stop landslides
- pupils / the roadside / filter dust
- the army / the dunes / hold back the sand
- a rich farmer / the border strip / break the wind
a {1} is more harmful to {2} than {3}.
p {3} does less damage to {2} than {1}.
p For {2}, {1} is worse than {3}.
n {3} is more harmful to {2} than {1}.
n {1} is harmless to {2}, in contrast to {3}.
- road salt / trees / frost
- noise / whales / warm water
- artificial light / night moths / rain
- overfishing / the reef / tourism
a Are {1} {2} to {3}?
p Do {3} have to fear {1} as {2}?
p Could {1} be {2} for {3}?
n Are {3} {2} to {1}?
n Are {1} no longer {2} to {3}?
- these berries / poisonous / people
- stinging jellyfish / dangerous / swimmers
- wolves / a threat / hikers
- mink / a risk / water birds
# entertainment
a My {1} wants to learn {2}, but there is no teacher {3}.
p Nobody {3} gives lessons in {2}, although my {1} would love to take some.
p My {1} would take up {2} if only someone {3} could teach it.
n My {1} wants to teach {2}, but there are no students {3}.
n My {1} no longer wants to learn {2}, though there is a teacher {3}.
- nephew / the cello / in our village
- flatmate / tap dancing / near the campus
- mother / Greek folk songs / on this side of town
- boyfriend / stage magic / within reach
a If you liked {1}, you will also enjoy {2}, which has {3}.
p Fans of {1} are bound to like {2} because of {3}.
p With {3}, {2} should please anyone who had fun with {1}.
n If you liked {1}, you will be let down by {2}, which lacks {3}.
n If you liked {2}, you will also enjoy {1}, even without {3}.
- the first puzzle game / the new one / trickier riddles
- slow crime novels / this old series / the same dry humor
- the school play / the summer show / a bigger band
- short ghost stories / this collection / a few real scares
# technology
a The {1} only saves {2}, so please {3}.
p Please {3}, given that the {1} stores nothing except {2}.
p All that the {1} keeps is {2}; for that reason, {3}.
n The {1} saves everything except {2}, so please {3}.
n The {1} only saves {2}, so there is no reason to {3}.
- dash camera / the last two hours / copy the clip right away
- form / complete answers / fill in each field
- old player / your place in the current chapter / finish one book first
- alarm panel / the ten newest events / write down older ones
a I would pay {1} for {2} that {3}.
p For {2} that {3}, I would gladly spend {1}.
p If some firm sold {2} that {3}, I would hand over {1}.
n I would never pay {1} for {2}, not even for one that {3}.
n I was paid {1} for {2} that {3}.
- a little more / a laptop / can be repaired at home
- two hundred dollars / a phone / lasts for ten years
- a monthly fee / a mail service / shows no ads
- good money / a printer / never jams
# transport
a The {1} apologized to {2} after {3}.
p After {3}, {2} heard an apology from the {1}.
p {3}, and for this the {1} told {2} how sorry they were.
n {2} apologized to the {1} after {3}.
n The {1} never apologized to {2}, even after {3}.
- railway staff / the passengers / the heating had failed
- pilots / a rock band / its drums had been lost
- drivers / the school / a class had been left behind
- ferry crew / the cyclists / their bikes had been soaked
a {1} walks to {2} {3} rather than take {4}.
p Instead of getting on {4}, {1} goes to {2} on foot {3}.
p {3}, {1} would sooner use both feet than {4} to get to {2}.
n {1} takes {4} to {2} {3} rather than walk.
n {1} walks home from {2} {3} but takes {4} on the way there.
- the judge / the court / every morning / the metro
- my grandfather / the barber / once a month / a taxi
- our postwoman / the depot / even in winter / the first bus
- Hannah / the stadium / on match days / the packed tram
# shopping
a The {1} looked {2} in the picture, but in real life it is {3}.
p In the photo I thought the {1} was {2}; when I unpacked it, it was {3}.
p The {1} turned out to be {3}, whereas the picture made it look {2}.
n The {1} looked {3} in the picture, but in real life it is {2}.
n The {1} is just as {2} in real life as it looked in the picture.
- armchair / huge / fit for a doll
- wedding dress / white / almost yellow
- watch / elegant / cheap and plain
- tent / sturdy / very flimsy
a Who pays for {1} when {2}?
p When {2}, is it me or the shop that has to cover {1}?
p I wonder who bears the cost of {1} in case {2}.
n Who decides about {1} when {2}?
n Who pays for the things themselves, but not for {1}, when {2}?
- the return postage / the goods are faulty
- a new screen / the phone breaks within a year
- the import tax / a parcel comes from abroad
- the storage / a buyer picks up late
# cooking
a {1} asked me to bring {2}, so I am making {3} with {4}.
p I am preparing {3} with {4}, since {1} wanted me to come with {2}.
p As {2} was the request that {1} made, {3} with {4} is what I am working on.
n I asked {1} to bring {2}, and it will be {3} with {4}.
n {1} asked me not to bring {2}, but I am making {3} with {4}.
- the host / a salad / a big bowl of couscous / mint
- our choir / a dessert / a tray of pastry / figs
- her parents / a starter / a cold soup / melon
- the club / finger food / a batch of rolls / smoked fish
# health
a {1} can read {2} without glasses but needs them for {3}.
p Only for {3} does {1} put on glasses; {2} is clear without them.
p To {1}, {2} is sharp to the naked eye, yet {3} calls for glasses.
n {1} can manage {3} without glasses but needs them to read {2}.
n {1} needs glasses both for {2} and for {3}.
- the bus driver / every road sign / fine print
- my aunt / the morning paper / the cinema
- our organist / the score / seeing the choir
- the tailor / a tape measure / threading a needle
# family
a {1} spent {2} looking for {3}, which {4}.
p {3}, which {1} had been searching for over {2}, {4}.
p For {2} {1} hunted for {3}, only to learn that it {4}.
n {1} spent {2} hiding {3}, which {4}.
n {1} did not spend even a minute looking for {3}, which {4}.
- the groom / half the morning / the ring / was in his shoe
- my sister / an hour / the teddy bear / had fallen behind the bed
- Grandma / all evening / the old album / was lying in the attic
- the whole clan / two days / the lost spoon / turned up in the cake
"""
