const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

const two = (value: number): string => String(value).padStart(2, "0");
const named = (names: readonly string[], index: number): string => names[index] ?? "";
/** Days of the year up to this one. */
const dayOfYear = (date: Date): number =>
  Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 0)) / 86_400_000);

/** ISO 8601's week, which belongs to the year of its Thursday. */
function isoWeek(date: Date): { readonly year: number; readonly week: number } {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 3 - ((date.getDay() + 6) % 7));
  return { year: thursday.getFullYear(), week: Math.floor((dayOfYear(thursday) - 1) / 7) + 1 };
}

const directives: Readonly<Record<string, (date: Date) => string>> = {
  "%": () => "%",
  A: (date) => named(days, date.getDay()),
  C: (date) => two(Math.floor(date.getFullYear() / 100)),
  c: (date) =>
    `${named(days, date.getDay()).slice(0, 3)} ${named(months, date.getMonth()).slice(0, 3)} ${String(date.getDate()).padStart(2)} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())} ${date.getFullYear()}`,
  f: (date) => String(date.getMilliseconds() * 1000).padStart(6, "0"),
  a: (date) => named(days, date.getDay()).slice(0, 3),
  B: (date) => named(months, date.getMonth()),
  b: (date) => named(months, date.getMonth()).slice(0, 3),
  d: (date) => two(date.getDate()),
  e: (date) => String(date.getDate()).padStart(2),
  F: (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
  D: (date) => `${two(date.getMonth() + 1)}/${two(date.getDate())}/${two(date.getFullYear() % 100)}`,
  H: (date) => two(date.getHours()),
  I: (date) => two(date.getHours() % 12 || 12),
  h: (date) => named(months, date.getMonth()).slice(0, 3),
  j: (date) => String(dayOfYear(date)).padStart(3, "0"),
  k: (date) => String(date.getHours()).padStart(2),
  l: (date) => String(date.getHours() % 12 || 12).padStart(2),
  M: (date) => two(date.getMinutes()),
  m: (date) => two(date.getMonth() + 1),
  p: (date) => (date.getHours() < 12 ? "AM" : "PM"),
  n: () => "\n",
  R: (date) => `${two(date.getHours())}:${two(date.getMinutes())}`,
  S: (date) => two(date.getSeconds()),
  T: (date) => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
  t: () => "\t",
  u: (date) => String(date.getDay() || 7),
  w: (date) => String(date.getDay()),
  x: (date) => `${two(date.getMonth() + 1)}/${two(date.getDate())}/${two(date.getFullYear() % 100)}`,
  X: (date) => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
  Y: (date) => String(date.getFullYear()),
  y: (date) => two(date.getFullYear() % 100),
  // The clock knows no zone, as datetime.now() of Python.
  Z: () => "",
  z: () => "",
  G: (date) => String(isoWeek(date).year),
  g: (date) => two(isoWeek(date).year % 100),
  P: (date) => (date.getHours() < 12 ? "am" : "pm"),
  r: (date) =>
    `${two(date.getHours() % 12 || 12)}:${two(date.getMinutes())}:${two(date.getSeconds())} ${date.getHours() < 12 ? "AM" : "PM"}`,
  s: (date) => String(Math.floor(date.getTime() / 1000)),
  U: (date) => two(Math.floor((dayOfYear(date) + 6 - date.getDay()) / 7)),
  V: (date) => two(isoWeek(date).week),
  W: (date) => two(Math.floor((dayOfYear(date) + 6 - ((date.getDay() + 6) % 7)) / 7)),
};

/** A local time as Python's strftime writes it in the C locale; directives that are not known stay as they are. "%-d" leaves out zeros. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)(.)/gs, (whole, minus: string, letter: string) => {
    const text = Object.hasOwn(directives, letter) ? (directives[letter]?.(date) ?? whole) : whole;
    return minus === "" || text === whole ? text : text.replace(/^[0 ]+(?=\d)/, "");
  });
}
