/**
 * The quickstart's task: an order in free words becomes a record.
 *
 *     Please send twelve lamps to Henry Bell in Boston by May.
 *     →
 *     name: Henry Bell
 *     city: Boston
 *     item: lamps
 *     count: twelve
 *     month: May
 *
 *     node generate.mjs --out DIR [--train 2000] [--held-out 200] [--seed 1]
 * writes rows `{"prompt","completion"}`: train.jsonl; held-out.jsonl (no pair of person and item, and no pair of person and city, is in the
 * training rows); unseen-names.jsonl (people whose first and last names are in no training row, the honest second figure).
 */
import { mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { randomNumbers } from "../random.mjs";

const listOf = (words) => words.trim().split(/\s+/);

const FIRST_NAMES = listOf(`
  Henry Mary John Anna George Ruth William Clara James Alice Thomas Ellen Peter Grace Daniel Martha Robert Laura Samuel Emma
  Walter Helen Albert Rose Edward Susan Martin Judith Simon Agnes Oliver Harriet`);
const LAST_NAMES = listOf(`
  Bell Carter Stone Fisher Baker Wood Harper Lane Mason Reed Porter West Turner Brook Cooper Marsh Hale Price Warren Field
  Parker Grant Webster Hill Sawyer Miller Foster Winter Archer Cross Shepherd Lake`);
const UNSEEN_FIRST_NAMES = listOf(`
  Charles Sarah Andrew Nora Philip Jane Benjamin Lucy Arthur Margaret Joseph Edith`);
const UNSEEN_LAST_NAMES = listOf(`
  Taylor Young Dean Collins Chandler Barnes Rivers Morgan Knight Spencer Page Church`);
const CITIES = listOf(`
  Boston London Chicago Paris Nantucket Baltimore Richmond Buffalo Denver Lima Berlin Vienna Salem Dover Madrid Portland Geneva
  Havana Charleston Mobile Hartford Manila Dublin Albany`);
const ITEMS = listOf(`
  lamps barrels chairs blankets candles ropes books boxes clocks tables hats shirts knives wheels mirrors stoves ladders
  baskets maps bottles carpets brushes letters flags`);
const MONTHS = listOf(`
  January February March April May June July August September October November December`);
const COUNTS = listOf(`
  two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty`);

const PHRASINGS = [
  (o) => `Please send ${o.count} ${o.item} to ${o.name} in ${o.city} by ${o.month}.`,
  (o) => `${o.name} of ${o.city} wants ${o.count} ${o.item} in ${o.month}.`,
  (o) => `This is ${o.name} from ${o.city}. I would like to have ${o.count} ${o.item} before the end of ${o.month}.`,
  (o) => `By ${o.month} we shall need ${o.count} ${o.item} at our house in ${o.city}. The order is for ${o.name}.`,
  (o) => `An order came from ${o.city}: ${o.count} ${o.item} for ${o.name}, not later than ${o.month}.`,
];

/** One row from an order: the text in one of the phrasings, and the record. */
function rowOf(order, random) {
  const phrasing = PHRASINGS[Math.floor(random() * PHRASINGS.length)];
  const completion = ["name", "city", "item", "count", "month"].map((key) => `${key}: ${order[key]}`).join("\n");
  return { prompt: `${phrasing(order)}\n`, completion };
}

/**
 * The three sets of the task, the same for the same seed.
 * @returns {{ train: Row[], heldOut: Row[], unseenNames: Row[] }} with `Row = { prompt: string, completion: string }`
 */
export function generateOrders({ trainCount = 2000, heldOutCount = 200, seed = 1 } = {}) {
  const random = randomNumbers(seed);
  const index = (count) => Math.floor(random() * count);
  const orderOf = (firstNames, lastNames) => {
    const [first, last, city, item] = [firstNames, lastNames, CITIES, ITEMS].map((items) => index(items.length));
    // A quarter of all (person, item) and (person, city) pairs belong to the held-out side; the rest never meet it.
    const isHeldOut = (first + last + item) % 4 === 0 && (first + 2 * last + city) % 4 === 0;
    const isTrain = (first + last + item) % 4 !== 0 && (first + 2 * last + city) % 4 !== 0;
    const order = {
      name: `${firstNames[first]} ${lastNames[last]}`,
      city: CITIES[city],
      item: ITEMS[item],
      count: COUNTS[index(COUNTS.length)],
      month: MONTHS[index(MONTHS.length)],
    };
    return { order, isTrain, isHeldOut };
  };
  const rows = (count, firstNames, lastNames, belongs) => {
    const set = [];
    while (set.length < count) {
      const drawn = orderOf(firstNames, lastNames);
      if (belongs(drawn)) set.push(rowOf(drawn.order, random));
    }
    return set;
  };
  return {
    train: rows(trainCount, FIRST_NAMES, LAST_NAMES, ({ isTrain }) => isTrain),
    heldOut: rows(heldOutCount, FIRST_NAMES, LAST_NAMES, ({ isHeldOut }) => isHeldOut),
    unseenNames: rows(heldOutCount, UNSEEN_FIRST_NAMES, UNSEEN_LAST_NAMES, () => true),
  };
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      train: { type: "string", default: "2000" },
      "held-out": { type: "string", default: "200" },
      seed: { type: "string", default: "1" },
    },
  });
  if (!values.out) throw new Error("generate.mjs: --out DIR is missing. Say where the rows are to be written.");
  const { train, heldOut, unseenNames } = generateOrders({
    trainCount: Number(values.train),
    heldOutCount: Number(values["held-out"]),
    seed: Number(values.seed),
  });
  mkdirSync(values.out, { recursive: true });
  const write = (name, rows) => writeFileSync(join(values.out, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  write("train.jsonl", train);
  write("held-out.jsonl", heldOut);
  write("unseen-names.jsonl", unseenNames);
  console.log(`${train.length} training rows, ${heldOut.length} held-out combinations, ${unseenNames.length} with unseen names`);
}
