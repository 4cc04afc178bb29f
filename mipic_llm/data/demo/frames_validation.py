"""Hand-written scenarios of the built-in graded validation pairs.

Format: ``# domain`` opens a domain; a ``=`` line opens a lexically tricky scenario, a ``+``
line a plain one, with its first sentence; each line below starts with the grade (0 to 5, the
STS scale) that the pair of the first sentence and the sentence on that line gets. All pairs of
the plain scenarios and a part of those of the tricky ones are used. A line that starts with two
spaces continues the line before it.
"""

SCENARIOS = """
# cooking
= She whisks cold cubes of butter into the sauce to make it glossy.
5 The sauce gets its shine from chilled butter pieces that she beats in.
3 She whisks a splash of cream into the sauce to make it glossy.
1 She put the cold butter cubes back so that the sauce would not be glossy with fat.
= The toddler fed the spaghetti to the dog.
2 The dog stole the spaghetti from the toddler.
4.5 A small child gave his pasta to the family pet.
0 The spaghetti western has a famous scene with a dog.
= Put a wooden spoon across the pot so that it does not boil over.
5 Laying a piece of wooden cutlery over the pan prevents it from overflowing.
2 Put the wooden spoon away and keep the pot from boiling dry.
1 Stir the pot with a wooden spoon.
= This curry is far too hot for me, could I have some yogurt?
4.5 My mouth is on fire from all that chili; please pass me something with yogurt.
1.5 This curry has gone cold on me, could I have it heated up?
2 This curry is not hot enough for me, could I have some chili?
= He grinds his own coffee beans every morning.
3.5 He makes coffee from whole beans at breakfast.
2 He grinds his own pepper every morning.
0 He has to work the daily grind like every other bean counter.
= The bakery sells out of rye bread by nine.
5 If you get there after nine, the rye loaves at the baker's are gone.
2 The bakery starts selling rye bread at nine.
3 By noon the bakery has no rye bread left.
= Nobody at the table noticed that the pie was made with salt instead of sugar.
4 The cook had mixed up sugar and salt in the dessert, yet none of the diners realized.
2 Everybody at the table noticed that the pie was made with salt instead of sugar.
1 The pie on the table was made with sugar from beets.
= Sharpening a blade on a stone takes patience.
4 You should not be in a hurry if you want to hone a knife.
2 Sharpening a blade on a machine takes seconds.
1 The blade slipped on a stone and broke.

# travel
= The ship turned around after an hour since a passenger had collapsed.
5 A medical emergency on board made the vessel go back to port one hour into the voyage.
3 The ship turned around after an hour since the engine had failed.
2 A passenger collapsed an hour after the ship had arrived.
= Our suitcases went to Madrid while we flew to Milan.
4.5 The airline sent the luggage to Spain by mistake; we ourselves landed in Italy.
2 Our suitcases went to Milan while we flew to Madrid.
3.5 We reached Milan but the bags did not.
= At the summit there is a hut that serves soup to climbers.
4 Mountaineers can get a warm meal at a shelter on the peak.
2 At the foot of the mountain there is a hut that sells ropes to climbers.
1 No climber reached the summit this year.
= You can drink the tap water here without worry.
5 Water straight from the faucet is safe in this place.
1.5 You should worry if you drink the tap water here.
0.5 Here you can tap the screen without worry to order a drink.
= We slept in hammocks strung between palm trees.
3 We spent the night outdoors on a beach.
4.5 Our beds were hanging nets that had been tied to two palms.
1 We drank coconut milk under the palm trees.
= The receptionist gave the guest the wrong key.
2 The guest gave the receptionist the wrong key.
4.5 At the front desk a visitor was handed a key that was for another room.
3 The receptionist gave the guest the wrong bill.
= Book the sleeper early, since the lower berths go first.
4.5 Reserve your night train well ahead; beds at the bottom are quickly taken.
2 Get up early in the sleeper, since the lower berths are cleaned first.
0.5 Read the book early, before you become a sleeper in the lower berth.
= a walking tour that includes the cemetery
4 Guided strolls which also take you to the old graveyard.
2 A walking tour that leaves out the cemetery.
1 A bus tour to the vineyards.

# health
= The surgeon operated on the left knee by mistake.
5 It was an error on the part of the doctor that the left knee underwent surgery.
2 The surgeon corrected the mistake before operating on the knee.
3 The surgeon operated on the wrong finger by mistake.
= My grandmother can hear much better with the new device in her ear.
4.5 Granny's hearing has improved a lot thanks to the aid that she now wears.
2 My grandmother can hear no better with the new device in her ear.
1 My grandmother cannot hear the doorbell.
= Since the accident he walks with a stick.
4 He has needed a cane ever since he was hurt.
1.5 Before the accident he walked with a stick.
0.5 He had an accident while throwing a stick for his dog.
= Sunburn is possible even under clouds.
5 You may get your skin scorched on an overcast day too.
1.5 Sunburn is not possible under clouds.
2.5 Sunburn is possible even in the shade of a tree.
= Too little sleep makes people gain weight.
4.5 Those who do not rest enough at night tend to become heavier.
2 Too little food makes people lose weight.
2.5 Being overweight makes people sleep too little.
= The ambulance needed eighteen minutes to reach the farm.
4 Medical help took nearly twenty minutes to arrive at the remote property.
3 The ambulance needed eight minutes to reach the farm.
1 The ambulance was parked at the farm for eighteen months.
= Could you recommend a cream against dry hands?
4.5 My palms are chapped; which lotion would help?
2 Could you recommend a cream against itchy feet?
0.5 Could you recommend a dry ice cream?
= The twins were born six weeks too soon.
5 Both babies came into the world a month and a half before their due date.
3 The twins were born six days too soon.
2 The twins will be six weeks old soon.
= The medicine tastes awful, but it works.
4.5 It is effective, this drug, however disgusting it may be to swallow.
2 The medicine tastes fine, but it does not work.
1 The medicine is kept on the top shelf.

# money
= She keeps her savings in a tin under the bed.
3.5 She does not trust banks and hides her money at home.
2 She keeps her sewing kit in a tin under the bed.
4.5 Her nest egg lies in a metal box beneath the mattress.
= The pound lost ground against the dollar.
5 The British currency weakened compared with the American one.
2 The pound gained ground against the dollar.
0 The dog lost ground to the others near the pound.
= Grandfather left everything to the church and nothing to his sons.
4.5 In the will, the parish was the sole heir; his boys went away with empty hands.
2 Grandfather left everything to his sons and nothing to the church.
1 Grandfather left the church before his sons did.
= We split the bill evenly among the five of us.
5 Each of the five paid an equal share of what the meal had cost.
2.5 One of the five of us paid the whole bill.
1 We could not read the bill, as it was split down the middle.
= Inflation is eating up my pension.
4.5 What I get as a retired person buys less and less.
1.5 My pension rises faster than inflation.
2.5 Inflation is eating up his wages.
= The thief sold the ring for a tenth of its worth.
4 The stolen jewel was flogged far below its real value.
3 The thief sold the ring for twice its worth.
2 The jeweler bought back the ring from the thief at its full worth.
= Never co-sign a loan for someone who is hiding debts.
4 Do not vouch for the credit of a person who conceals what he owes.
2 Never hide a loan from someone who co-signs your debts.
1 He never signed for the parcel.
= The charity was given one million by a woman who cleaned offices.
5 An office cleaner donated a million to the aid organization.
2 The charity gave one million to a woman who cleaned offices.
2.5 The charity paid a woman who cleaned its offices.
= exchange rate fee when paying abroad
4 Many cards add a surcharge for purchases in a foreign currency.
1.5 No tip is expected when paying in a restaurant abroad.
0.5 The student paid a fee for his exchange year abroad.

# work
= Half of the workforce is on strike over unpaid overtime.
4.5 One in two employees has stopped working because extra hours were not compensated.
2 Half of the workforce works overtime because of the strike.
3 Half of the workforce is on strike over safety.
= The secretary knows more about the firm than the director does.
2 The director knows more about the firm than the secretary does.
5 In terms of insight into the company, the boss is no match for the assistant.
1 The secretary and the director have lunch together.
= He got fired for sleeping on the job.
4.5 They dismissed him because he had dozed off at work.
2 He was tired from sleeping badly before his job.
3 He got fired for stealing on the job.
= The crane operator refused to climb up in such a gale.
4 The man who runs the crane would not go up, as it was too windy.
1.5 The crane operator agreed to climb up in such a gale.
0 A crane spread its wings and climbed in the gale.
= Our department has not hired a woman in four years.
4.5 For four years, all new people in our section have been men.
2 Our department has hired only women for four years.
3 Our department has not hired anyone in four years.
= I will be unreachable until Thursday, so contact Priya instead.
5 Please turn to Priya, because nobody can get hold of me before Thursday.
2.5 I will be unreachable from Thursday, so contact Priya before then.
2 Priya will be unreachable until Thursday, so contact me instead.
= The night watchman heard footsteps on the third floor.
4 The guard noticed that somebody was walking around upstairs after dark.
2 Nobody on the third floor heard the footsteps of the night watchman.
1 The night watchman swept the third floor.
= She turned down the raise because she wanted shorter days.
4 Fewer hours meant more to her than a higher salary, so she declined the money.
1.5 She accepted the raise although it meant longer days.
1 She turned down the volume because she wanted a shorter call.
= The apprentice corrected the master.
5 It was the trainee who put the craftsman right.
2 The master corrected the apprentice.
0.5 The master bedroom was correctly measured.

# school
= The substitute teacher let us out ten minutes early.
4 The stand-in for our regular teacher ended the lesson ahead of time.
2 The substitute teacher came in ten minutes late.
2 The substitute teacher kept us in ten minutes longer.
= He spelled the word right at the third attempt.
4 After two failed tries he wrote it correctly.
2 He spelled the word wrong at the third attempt.
1 He looked up three words.
= The girl who won the maths prize never does her homework.
4.5 Though she skips all assignments, she got the award in mathematics.
2 The girl who never does her homework failed in maths.
1 The girl lost her maths homework on the way to the prize ceremony.
= There are more girls than boys in the robotics club.
5 Boys are outnumbered by girls in the group that builds robots.
2 There are more boys than girls in the robotics club.
3 There are as many boys as girls in the robotics club.
= The fire alarm went off in the middle of the oral test.
4.5 While someone was being examined aloud, a siren began to wail.
3 The fire alarm went off just after the oral test.
1.5 The oral test was about what to do when a fire alarm goes off.
= Our history lesson was about a plague in the Middle Ages.
4 We learned at school how a deadly disease spread in medieval times.
2 Our history lesson was about castles in the Middle Ages.
1 People of middle age are plagued by back pain.
= Children under six do not have to learn to read here.
5 In this place, no one expects reading skills of kids before they turn six.
1.5 Children over six have to learn to read here.
2 Children under six have to learn to read here.
= The chalk screeched and everyone covered their ears.
4 The class could not stand the awful noise coming from the blackboard.
1 The chalk broke and everyone looked for a new piece.
0 The chalk cliffs are covered with grass.
= need a quiet place to revise with wall sockets
4 I am after a silent study spot where I can plug in a laptop.
2.5 I need a lively cafe to revise in with my friends.
1 The wall of the study is being revised by an architect.

# weather
= A rainbow formed although it was still pouring.
4.5 Colors arched across the sky while the rain came down hard.
1.5 No rainbow formed, although the rain had stopped.
3 A rainbow formed as soon as the rain had stopped.
= The pilot waited for the crosswind to ease before landing.
4.5 The plane did not touch down until the sideways gusts had calmed.
2.5 The pilot landed before the crosswind became too strong.
1 The pilot complained about the long wait after landing.
= There has been no snow at the resort, so they are making it with cannons.
5 Machines produce the white stuff, as nothing has fallen at the ski area.
2.5 There has been so much snow at the resort that they have switched off the cannons.
1 There were cannons in the snow at the old fort.
= Humid air makes my hair curl.
4.5 My locks go frizzy in muggy conditions.
2 Dry air makes my hair straight.
1 My curly hair takes hours to dry.
= The temperature fell by twelve degrees in an hour.
4 Within sixty minutes it got a lot colder.
2 The temperature rose by twelve degrees in an hour.
3 The temperature fell by two degrees in an hour.
= Last month was the wettest since records began.
4.5 Never before has so much rain been measured in a single month.
2 Last month was the driest since records began.
0.5 The band has sold more records than ever since last month.
= The hail was the size of golf balls.
4 Huge lumps of ice came down from the sky.
2 The hail was the size of grains of rice.
0.5 He lost two golf balls in the tall grass.
= It is too foggy to see the lighthouse.
5 The mist is so dense that the beacon on the shore is hidden.
2 It is foggy, but you can see the lighthouse.
1.5 The lighthouse helps ships to find their way.
# sports
= The underdog knocked out the world champion in the first round.
4.5 An outsider needed just one round to floor the title holder.
2 The world champion knocked out the underdog in the first round.
3 The underdog beat the world champion on points.
= She swam across the channel without a wetsuit.
4 Wearing only a swimsuit, she crossed the strait.
3 She swam across the channel in a wetsuit.
1.5 She bought a wetsuit before she crossed the channel by ferry.
= The fans booed when the keeper was taken off.
5 The supporters showed their anger at the substitution of the goalie.
2 The fans cheered when the keeper was taken off.
2 The keeper booed the fans when they were taken away.
= His serve is brilliant, but his backhand lets him down.
3 He is a tennis player with strengths and weaknesses.
2 His backhand is brilliant, but his serve lets him down.
0 The waiter will serve you, but he brings down the wrong plates.
= They skated the whole length of the frozen canal.
4.5 From one end of the icy waterway to the other, they went on blades.
2.5 They walked the whole length of the frozen canal.
1 The canal was too long to freeze as a whole.
= The winner was disqualified for shoving the runner-up.
4.5 The man who came first lost his title, having pushed the one who came second.
2.5 The runner-up was disqualified for shoving the winner.
2 The winner thanked the runner-up for a fair race.
= A broken string cost her the archery title.
4 She did not become champion because her bow failed.
2 A broken arm cost her the rowing title.
1 She broke her old record in archery.
= The crowd fell silent as the gymnast stepped onto the beam.
4 All the spectators went quiet when the athlete began her balance routine.
2 The crowd roared as the gymnast stepped onto the beam.
2 The gymnast fell off the beam in front of a noisy crowd.
= He coaches the under-tens because his own son plays in that group.
4.5 Since his boy is on the youngest squad, he works as its trainer.
2.5 He coaches the under-tens although his own son has left that group.
2 His own son coaches the under-tens.

# home
= The doorbell rings by itself whenever it rains.
5 Wet weather sets off the bell at our entrance although nobody presses it.
1.5 The doorbell does not work whenever it rains.
2 Whenever it rings at the door, it rains.
= Mount the mirror so that it reflects the window and brightens the corner.
4 Hang the glass opposite the daylight, and the dark part of the room will be lighter.
2 Move the mirror away from the window so that it does not blind you.
1 Clean the mirror and the window with vinegar.
= The chimney sweep found a nest with four eggs in the flue.
4.5 Birds had been breeding in the chimney, as the man who cleans it discovered.
2 The chimney sweep found no nest and swept the flue.
0.5 The cook swept the shells of four eggs into the bin.
= My landlord wants to knock down the wall between my kitchen and my bedroom.
4 The owner of my flat plans to merge the cooking and the sleeping area.
2 My landlord wants to build a wall between my kitchen and my bedroom.
2.5 I want to knock down the wall between my kitchen and bedroom, but my landlord says no.
= Hot water runs out after one shower.
5 The second person to wash has to do so in the cold.
2 Hot water lasts for at least five showers.
1 A hot shower is good for you after a run.
= The bricklayer sang as he worked.
3 A craftsman was in a good mood on the building site.
1 The singer paid a bricklayer to do the work.
4.5 While laying bricks, the man was singing.
= There is a bat in the attic and I am scared to go up.
4.5 I do not dare to climb to the loft, because a small flying animal is in there.
1 There is a baseball bat in the attic and I am going up to get it.
2 There is a bat in the attic, but I am not scared to go up.
= Two keys fit the front door, but neither opens the cellar.
4 The basement cannot be unlocked with either of the keys for the main entrance.
2 Two keys fit the cellar, but neither opens the front door.
1 The front door opens onto the cellar steps.
= cheapest way to soundproof a bedroom
4 You can block noise in a sleeping room at low cost with thick rugs and bookshelves.
2 The cheapest way to repaint a bedroom is to do it yourself.
1.5 The bedroom is the cheapest room to heat.

# gardening
= A hedgehog has moved into the pile of leaves behind the greenhouse.
4 Some small prickly animal now lives in the heap of foliage out back.
2 A hedgehog has moved out of the pile of leaves behind the greenhouse.
2.5 A snake has moved into the pile of stones behind the greenhouse.
= The gardener pruned the vine too hard and lost the whole crop.
5 There were no grapes at all, since the plant had been cut back excessively.
2.5 The gardener hardly pruned the vine and had a huge crop.
1 The crop of the hard-working gardener was sold at the market.
= Sunflowers follow the light during the day.
4.5 The big yellow blooms turn their heads with the sun.
2 Sunflowers do not follow the light during the day.
1 Sunflower oil is light and has little taste.
= Put crushed eggshells around the hostas to stop snails.
5 Broken shells on the ground will keep slimy pests from those plants.
2 Put beer traps around the strawberries to catch snails.
1.5 Snails with crushed shells were lying around the hostas.
= The willow has to go, because its roots are lifting the paving.
4.5 We must fell that tree; it pushes up the stones of the walkway.
2 The paving has to go, because it is choking the roots of the willow.
2.5 The willow may stay, although its roots are lifting the paving.
= My window box is full of chives and mint.
3 I grow herbs at home.
2 My lunch box is full of chives and mint.
4.5 Two kinds of herb fill the planter on my sill: mint and chives.
= He mows the lawn in stripes like a football pitch.
4 His grass is cut in a neat pattern such as you see in stadiums.
1.5 He plays football on a lawn that has not been mown.
0.5 He wore a shirt with stripes on the football pitch.
= The well ran dry in August, so they carried buckets from the stream.
5 As there was no water left in the shaft in late summer, they fetched it from the brook.
2.5 The stream ran dry in August, so they carried buckets from the well.
0 They ran so well in August that buckets of medals streamed in.

# pets
= The cat brought its owner a live mouse.
4 A pet gave the person that feeds it a rodent which was not dead.
2 The owner brought the cat a toy mouse.
2.5 The cat ate a live mouse in front of its owner.
= Our dog only obeys commands in French.
5 You have to speak French if you want our dog to do as it is told.
1.5 Our dog obeys commands in any language except French.
1 Our French neighbor has an obedient dog.
= The rabbit bit the boy because he pulled its ears.
5 The boy got bitten, as he had tugged at the ears of the animal.
2 The boy pulled the ears of the rabbit because it bit him.
2 The rabbit let the boy pull its ears and did not bite.
= She walks six dogs at once to earn some pocket money.
4 The girl makes a little cash by taking other people's dogs out.
2 She walked six miles at once to earn some money for charity.
1.5 She spends all her pocket money on dogs.
= Tortoises can outlive the people who own them.
5 The keeper of such a slow reptile may well die before it does.
2 People mostly outlive the tortoises that they own.
1.5 Tortoises outrun snails.
= The parrot repeats everything that the neighbor shouts.
4.5 Whatever is yelled next door, the bird copies it.
2 The neighbor shouts whenever the parrot repeats something.
2.5 The parrot repeats nothing that the neighbor shouts.
= Never leave an animal in a parked car in summer.
4 On hot days, do not let your pet wait alone in the vehicle.
2 Never leave a child's toy in a parked car in summer.
1 My pet loves summer trips in the car.
= The vet could not find the chip in the stray.
4 No electronic tag was detected in the homeless animal.
2 The vet found the chip in the stray at once.
0 The cook could not find the chip pan.
= Our goldfish survived the move in a salad bowl.
4 During the relocation, our fish was kept alive in a kitchen dish.
2 Our goldfish did not survive the move.
0.5 We moved the salad bowl next to the fish platter.

# shopping
= The customer ahead of me paid for my coffee.
5 I got my drink for free, thanks to the person before me in line.
2 I paid for the coffee of the customer ahead of me.
1.5 The customer ahead of me spilled my coffee.
= They sent a left boot and another left boot.
4.5 Instead of a proper pair, I was shipped two boots for the same foot.
2 They sent a left boot and a right boot as ordered.
1 They left before I could send the boots.
= I bought the couch without measuring the stairwell.
4 I got a sofa but did not check if it would fit up the stairs.
2 I measured the stairwell before I bought the couch.
0.5 I took measures against the noise in the stairwell.
= The supermarket rearranged its aisles and I cannot find anything.
4.5 Since they moved all the goods around, I am lost in that store.
2 The supermarket rearranged its aisles and now I find everything.
1.5 The supermarket is short of staff to fill its aisles.
= Every tenth visitor got a free umbrella.
3.5 The shop gave away some umbrellas.
3 Every visitor got a free umbrella.
2 Every tenth visitor had to give up the umbrella at the door.
= The auction ended before I could raise my bid.
4.5 I was too slow to offer a higher sum; the sale was already over.
2 I raised my bid just before the auction ended.
1 I could not raise my arm at the end of the auction.
= Kids' bikes are on the upper floor, next to the tents.
5 Go upstairs to where the camping gear is: you will see bicycles for children there.
2.5 Tents are on the upper floor, and kids' bikes are in the basement.
1 The kids took their bikes and slept in tents.
= The sweater shrank in the wash although I followed the label.
4 I stuck to the care instructions, but the knitwear is too tight now.
2.5 The sweater shrank in the wash since I ignored the label.
1.5 The label came off the sweater in the wash.

# technology
= The hacker turned out to be a boy of thirteen.
5 A thirteen-year-old kid was behind the cyber attack.
2 The boy of thirteen turned out not to be the hacker.
2 A boy of thirteen was attacked by a hacker.
= I typed the password five times and now the account is locked.
4.5 After too many tries at logging in, I have been shut out.
2 I changed the password and now the account is unlocked.
1 I counted five locks at the door of the bank.
= Voice commands do not work when the fan is running.
4.5 With the ventilator on, the device fails to understand what I say.
2 Voice commands work even when the fan is running.
0.5 The fan lost his voice when the band was running onto the stage.
= The robot vacuum got stuck under the sofa again.
4.5 Once more, the little cleaning machine is trapped beneath the couch.
2 The cat got stuck under the sofa again.
2.5 The robot vacuum no longer gets stuck under the sofa.
= My e-mail to the whole staff ended up in the spam folder.
4 None of the employees saw my message, since it was filtered out as junk.
2.5 An e-mail from the staff ended up in my spam folder.
1 The whole staff filled in a form about their e-mail addresses.
= This keyboard is missing the letter Q.
3 This keyboard has a defect.
4.5 There is no Q on that thing you type with.
1 I am missing a letter from the queen.
= The self-driving car stopped for a cardboard cow.
5 A vehicle without a driver braked because of a fake animal made of cardboard.
2 The self-driving car did not stop for a cow.
1.5 The driver stopped the car to look at the cows.
= Who invented the zipper?
2 Who invented the button?
4.5 I would like to know the creator of the zip fastener.
1.5 Who broke the zipper?
= Old phones are thrown away although most of their parts could be reused.
4 We bin outdated handsets, yet a lot inside them is still good.
2 Old phones are taken apart so that their parts can be reused.
1 The old part of town has no phones.

# transport
= A swan on the tracks brought the morning traffic to a halt.
4 Trains could not move at rush hour because a large bird was in the way.
2 A swan watched the morning traffic from the lake.
2.5 A fallen tree on the tracks brought the evening traffic to a halt.
= The taxi driver refused to take the drunk man.
4 A cab would not give a lift to somebody who had had too much alcohol.
2 The drunk man refused to take the taxi.
2 The taxi driver was drunk and refused to stop.
= The conductor let the girl ride free because she had lost her purse.
4.5 Since her wallet was gone, the girl did not have to pay the ticket inspector.
2 The conductor fined the girl although she had lost her purse.
0.5 The conductor let the girl play a solo in the free concert.
= Fog on the runway forced the plane to circle for forty minutes.
4.5 The jet had to fly rounds for two thirds of an hour, as mist hid the landing strip.
3 Fog on the runway forced the plane to land elsewhere.
1.5 The plane took off in fog and flew for forty minutes.
= My bicycle was stolen in front of the police headquarters.
4.5 Someone took my bike right outside the main station of the cops.
2 My bicycle was found in front of the police headquarters.
2.5 My wallet was stolen in front of the opera.
= The tunnel saves drivers the trip over the mountain.
4 Thanks to an underground road, cars need not climb the pass.
1.5 The tunnel is shut, so drivers have to go over the mountain.
1 The drivers stopped on the mountain to save fuel.
= When the bridge is up, cars have to wait for the ships.
5 Road traffic must stop while boats go through the raised span.
2 When the bridge is down, ships have to wait for the cars.
1.5 The bridge is so high that ships and cars never have to wait.
= wheelchair access at the underground station
4.5 There is a lift, so people who cannot walk are able to use the metro stop.
2.5 There are bicycle racks at the underground station.
1 The wheelchair was sent to an underground car park.

# family
= The bride's brother played the organ at the ceremony.
4.5 It was her own brother who made music in church as she got married.
3 The groom's sister sang at the ceremony.
2 The bride played the organ at her brother's ceremony.
= Our son has started to talk in his sleep.
4.5 These days our boy says things at night without waking up.
2 Our son has stopped talking in his sleep.
2 Our son has started to walk in his sleep.
= The stepmother treats all four children the same.
5 She makes no difference between her own kids and those of her husband.
2 The stepmother favors two of the four children.
1.5 The four children all call their stepmother by her first name.
= Mother reads the letters that my brother writes from prison.
4 My mom goes through the mail sent by her jailed son.
2.5 My brother reads the letters that Mother writes from prison.
2.5 Mother burns the letters that my brother writes from prison.
= They have been married for fifty years and still hold hands.
4.5 After half a century as husband and wife, they walk hand in hand.
2 They have been divorced for fifteen years and still do not speak.
1 They have known the priest who married them for fifty years.
= My aunt has raised her nephew since he lost his parents.
5 The orphaned boy grew up with his aunt.
2 The nephew has cared for my aunt since she lost her parents.
1.5 My aunt has not seen her nephew since he visited his parents.
= At the reunion nobody could remember whose idea it had been.
4 None of those who had come together again knew who had suggested it.
2 Everybody at the reunion remembered whose idea it had been.
1 At the reunion there was too little to eat.
= The baby only stops crying in a moving car.
5 We have to drive around, or else the little one keeps wailing.
2 The baby starts crying in a moving car.
1.5 The baby cried when the family moved.
= Dad proposed to Mom on a ski lift.
4 My father asked my mother to marry him while they were going up a slope.
2 Mom proposed to Dad on a ski lift.
3 Dad proposed to Mom in a cable car that had got stuck in the dark.

# entertainment
= The pianist forgot the second movement and improvised.
4.5 He had a blank in the middle of the piece, so he made something up at the keyboard.
2.5 The pianist remembered the second movement and did not have to improvise.
0.5 The piano movers forgot the second piano.
= The sequel made more money than the original.
5 Part two earned more than the first film.
2 The original made more money than the sequel.
2.5 The sequel cost more money than the original.
= Nobody expected the clown to be the murderer.
4.5 That the killer was a circus joker came as a surprise to all.
2 Nobody expected the clown to be murdered.
2 Everybody guessed that the clown was the murderer.
= The singer lost her voice and mimed the last three songs.
4.5 She moved her lips to a recording at the end of the gig, as she had gone hoarse.
2.5 The singer lost her voice and cancelled the last three concerts.
1 The last three singers were voted out by the crowd.
= He read the whole saga in one weekend.
4 It took him just two days to get through all the volumes.
2 He watched the whole series in one weekend.
2.5 He read one page of the saga in a whole weekend.
= The painting had been hanging upside down for decades.
5 For many years no one had put the picture the right way up.
2.5 The painting had been hanging in a bank for decades.
1 The painter hung his coat on the door for decades.
= The stuntman broke his collarbone, so the star jumped himself.
4 The leading actor did the leap, as his double had been injured.
2 The star broke his collarbone, so the stuntman jumped for him.
1 The star broke off his engagement and jumped into a new one.
= board game for two that takes under half an hour
4.5 We want something short to play at the table, just the pair of us, thirty minutes at most.
2 A board game for six that takes a whole evening.
0.5 The board met for under half an hour to discuss two games.

# neighborhood
= Somebody has been feeding the pigeons on our roof.
4.5 An unknown person gives food to the birds on top of our building.
2 Somebody has been chasing the pigeons from our roof.
1 Somebody has been repairing our roof.
= The mayor opened the new bridge by riding over it on a donkey.
4.5 On the back of an animal with long ears, the head of the town crossed and inaugurated it.
2.5 The mayor closed the old bridge after a donkey had fallen from it.
3 The mayor opened the new bridge by driving over it in an old car.
= The library lends out tools as well as books.
5 Besides reading material, you can borrow drills and the like there.
2 The library lends out books but no tools.
2.5 The hardware store lends out tools and gives away books.
= Please do not leave your shoes on the stairs.
4 Kindly keep footwear out of the stairwell.
2 Please leave your shoes on the stairs before you come in.
2.5 Please do not leave your bicycle on the stairs.
= Two streets away they found a bomb from the last war.
5 An old explosive left over from wartime was discovered close by.
1.5 Two streets away there is a museum about the last war.
0.5 The new musical was a bomb, two streets away from the theater district.
= The old cinema was turned into flats.
4.5 Where films used to be shown, people now have apartments.
2.5 The old factory was turned into a cinema.
0 The old lady turned to flat shoes for the cinema.
= The new family upstairs is so quiet that we thought nobody had moved in.
4.5 We hear nothing from the people who now live above us, as if the place were empty.
2 The new family upstairs is so loud that we thought of moving out.
1.5 Nobody has moved in upstairs, so it is quiet.
= The postman was bitten twice by the same goose.
5 One and the same bird attacked the man who delivers the mail on two occasions.
2 The goose was hit twice by the same postman.
2.5 The postman was bitten by two dogs.

# nature
= A whale stranded on the beach and died within hours.
4.5 The giant sea mammal washed ashore and did not survive the day.
2 A whale stranded on the beach and was saved within hours.
1.5 A whale was seen from the beach for hours.
= Bears fatten up before their winter sleep.
5 Ahead of hibernation, these animals eat as much as they can.
2 Bears are thin after their winter sleep.
0.5 He cannot bear to sleep in winter without a fat quilt.
= The spider spins a new web every night.
4 Each night this eight-legged creature makes a fresh net.
2 The spider repairs its old web every night.
0 The site gets new web visitors every night, and the counter spins.
= Cuckoos lay their eggs in the nests of other birds.
4.5 This bird lets strangers hatch its young.
2 Other birds lay their eggs in the nests of cuckoos.
1 Cuckoo clocks have little birds in them.
= Lava destroyed the village, but all its people had left.
5 The place was wiped out by molten rock after everyone had got away.
2.5 Lava spared the village, although all its people had left.
3 A flood destroyed the village, but all its people had left.
= The male sea horse carries the young.
4 In this species it is the father that becomes pregnant.
2 The female sea horse carries the young.
0.5 The young man carries a horse blanket to the sea.
= The glacier has shrunk to half its size since 1950.
4.5 In about seventy years, that mass of ice has lost fifty percent of its extent.
2 The glacier has doubled in size since 1950.
1.5 The glacier has attracted tourists since 1950.
= Plastic was found in the stomachs of nine out of ten seagulls.
4 Most of the seabirds examined had swallowed bits of plastic.
2.5 Plastic was found in one out of ten seagulls.
1 Nine out of ten seagulls prefer chips to bread.
# cooking
+ Our neighbor bakes fresh bread for the whole street every Saturday.
5 Every Saturday, the man next door bakes fresh bread for everybody in our street.
3.5 Our neighbor often bakes for other people.
1 The oven of our neighbor needs a new door.
+ A woman is slicing cucumbers in a small kitchen.
5 In a tiny kitchen, a woman is cutting cucumbers into slices.
3 Somebody is preparing vegetables.
1 Two men are eating soup in a restaurant.
+ The chef tastes every sauce before it leaves the kitchen.
4.5 No sauce leaves the kitchen before the chef has tasted it.
3 The cook checks his dishes with care.
0.5 The waiter is wiping the tables on the terrace.
# travel
+ The train trip through the mountains lasts about nine hours.
4.5 The journey by train through the mountains takes roughly nine hours.
3 It is a long ride through the mountains.
1 Trains in that country are painted yellow.
+ They rented a small wooden boat and rowed to the island.
5 They hired a little wooden boat and rowed across to the island.
3.5 They went to the island by boat.
0.5 The island has two churches and a windmill.
+ Our tent was soaked after the first night of camping.
5 After the first night of camping, our tent was wet through.
2.5 Camping was wet.
1 Campers often cook over an open fire.
# health
+ Regular exercise keeps your heart strong and healthy.
5 Your heart stays healthy and strong if you exercise regularly.
3.5 Exercise is good for your body.
1 The patient was given a pill for his heart.
+ The boy broke his arm when he fell off a swing.
5 A boy fell off a swing and broke his arm.
3 A child was hurt at the playground.
1 The hospital bought a new X-ray machine.
+ Many old people in the village have no doctor nearby.
4.5 There is no doctor near the village for its many old people.
2.5 Medical care is poor in the countryside.
0.5 The young doctor likes to go fishing.
# money
+ The city spent four million on a new concert hall.
5 Four million was spent by the city on building a new concert hall.
3.5 The city paid a lot for a new hall.
0.5 The choir rehearses for a concert in spring.
+ Rents in the capital have risen sharply this year.
5 This year rents in the capital went up sharply.
3 Living in big cities is getting expensive.
1 My tenant moved out and left a chair behind.
+ A robber took all the cash from the petrol station.
4.5 All the cash at the petrol station was taken by a robber.
3 A petrol station was the scene of a crime.
1 Petrol is sold at a station near the motorway.
# work
+ The company will open a second factory in the north.
5 A second factory is going to be opened in the north by the company.
2 The company is growing.
1 Factory workers eat lunch at noon.
+ Two hundred people have applied for one job at the museum.
5 There are two hundred applicants for a single job at the museum.
3.5 Many people want to work at the museum.
1 The museum shows stone tools and old coins.
+ The mechanic is repairing a red tractor in the yard.
5 In the yard, a mechanic is fixing a red tractor.
3 A man is working on a vehicle.
0.5 A cow is standing in the yard.
# school
+ The children built a model of a volcano in science class.
5 In science class, the children made a model volcano.
3 The pupils did a science project.
1 The science teacher is on parental leave.
+ She teaches mathematics at a school for girls.
4.5 At a girls' school, she works as a teacher of mathematics.
3 She is a teacher.
1 The girls wear a blue uniform.
+ The school bus was full of noisy children.
5 Noisy children filled the school bus.
3 There were children on the bus.
0.5 The school roof needs to be repaired.
# weather
+ Strong winds knocked over several trees in the park.
5 Several trees in the park were knocked over by strong winds.
2.5 There was storm damage.
1 The trees in the park turn yellow in autumn.
+ It snowed all night and the roads are white this morning.
5 It was snowing the whole night and this morning the roads are white.
2.5 There is snow outside.
1 The clouds are moving slowly to the east.
+ Summers on this island are long, hot and dry.
5 On this island the summers are hot, dry and long.
3 The island has a warm climate.
1 Last summer we had a thunderstorm on my birthday.
# sports
+ A group of men is playing volleyball on the beach.
5 Some men are playing volleyball at the beach.
2.5 People are doing sports outside.
1 A woman is reading a magazine on the beach.
+ The young skater won the gold medal at her first championship.
5 At her first championship, the young skater won gold.
3.5 A girl won a medal in skating.
1 The ice rink closes in April.
+ The stadium was half empty because tickets were too expensive.
5 Because the tickets cost too much, the stadium was half empty.
3 Few people came to the game.
1 The stadium was built next to a river.
# home
+ A man is washing the windows of his house.
5 A man cleans the windows of his house.
2.5 Somebody is cleaning.
1 The house has a red door.
+ We bought a new dishwasher because the old one was broken.
5 The old dishwasher was broken, so we bought a new one.
3.5 We have a new kitchen machine.
1 Dirty plates are piled up on the table.
+ The bathroom floor is wet and very slippery.
5 The floor in the bathroom is wet, and it is very slippery.
2.5 Be careful in the bathroom.
0.5 The bathroom light is too dim for reading.
# gardening
+ My grandfather grows giant pumpkins behind his house.
5 Behind his house, my grandfather grows enormous pumpkins.
3 Grandpa has pumpkins.
1 Pumpkin pie is served with cream.
+ The old apple tree gave us more fruit than ever this year.
5 This year we got more fruit than ever from the old apple tree.
3 We had a good harvest.
1 There is a wooden bench under the tree.
# pets
+ The puppy is sleeping in a basket next to the fire.
5 A puppy sleeps in a basket beside the fire.
3 A dog is resting.
1 A kitten is climbing up the curtain.
+ Our old cat likes to lie in the sun all day.
5 All day long, our old cat likes lying in the sun.
2.5 The cat is lazy.
1 The cat food is on the lowest shelf.
+ A white horse is running across a green field.
5 A white horse runs across a field of green grass.
2.5 An animal is running outside.
1 A horse is being washed in the stable.
# shopping
+ I am looking for a waterproof jacket for my daughter.
5 I want to find a waterproof jacket for my daughter.
3 I need clothes for my child.
1 My daughter works in a clothes shop.
+ The bookstore on the corner is closing down next month.
5 Next month, the bookstore at the corner will close down.
3 A shop is going out of business.
1 I read a long book about sailors last month.
+ The shoes I bought yesterday are too small for me.
5 The shoes that I purchased yesterday are too small.
3 My new shoes do not fit well.
1 My shoes are covered in mud.
# technology
+ The internet connection in my office is very slow today.
5 Today the internet in my office is very slow.
3 I have trouble with the internet.
1 My office has two desks and a big window.
+ A woman is talking on her mobile phone in the street.
5 A woman is speaking on a mobile phone in the street.
2.5 A person is using a phone.
1 A man is fixing an old radio.
+ The new camera takes very sharp pictures at night.
5 Very sharp pictures can be taken at night with the new camera.
2.5 The camera is good.
1 The photographer forgot his tripod at home.
# transport
+ A young woman is riding a bicycle through heavy traffic.
5 A young woman rides her bike through heavy traffic.
2 Someone is on the road.
1 A bus is parked next to a fountain.
+ The ferry to the mainland leaves three times a day.
5 Three times a day there is a ferry that leaves for the mainland.
3.5 You can get to the mainland by boat.
1 The captain of the ferry has a white beard.
+ The road to the airport is blocked after an accident.
5 An accident has blocked the road to the airport.
2.5 There is a traffic problem.
1 The airport is getting a third terminal.
# family
+ Their daughter was born on a cold night in January.
5 On a cold January night, their daughter was born.
3 Their child has her birthday in winter.
1 Their daughter is studying to be a nurse.
+ My sister and I share a bedroom in our parents' house.
5 In our parents' house, my sister and I share one bedroom.
2.5 I live with my family.
1 My sister collects stamps and shells.
+ The whole family gathered around the table for dinner.
5 The entire family gathered for dinner around the table.
2.5 People are about to eat together.
1 The family car is ten years old.
# entertainment
+ A man with long hair is playing the guitar on stage.
5 A long-haired man plays the guitar on the stage.
3 A musician is performing.
1 The stage curtains are made of red velvet.
+ The last episode of the series was watched by millions.
5 Millions of people watched the final episode of the series.
3 The series is popular.
1 My television set has a broken remote control.
+ Two girls are dancing to loud music in the square.
5 In the square, two girls dance to loud music.
3 There is dancing in the town.
1 An orchestra is tuning its violins.
# neighborhood
+ The town council wants to build a new playground near the river.
5 The council of the town plans to build a new playground close to the river.
2.5 Something new is planned for the children of the town.
1 The council meets in an old brick building.
+ An elderly man is feeding ducks by the pond.
5 An old man feeds the ducks at the pond.
3 A person is spending time outside with animals.
1 The pond is surrounded by tall reeds.
+ Police are looking for a man who broke into three houses.
5 The police are searching for a man who has broken into three houses.
3 There is a burglar in the area.
1 A police officer is directing traffic.
# nature
+ A small brown bird is sitting on a branch.
5 A little brown bird sits on a branch.
2.5 There is an animal in the tree.
1 A snake is lying on a warm rock.
+ The forest fire destroyed thousands of trees last summer.
5 Last summer thousands of trees were destroyed by the forest fire.
2 Nature suffered last year.
1 The forest is a popular place for walks.
+ Elephants drink up to two hundred liters of water a day.
5 In one day, an elephant may drink as much as two hundred liters of water.
2.5 Large animals need lots of water.
1 Elephants have poor eyesight.
"""
