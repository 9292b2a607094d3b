import { UnreachableError } from "./retry.js";

/** The proxy through which an address is reached; null where it is reached directly. */
export type Proxies = (address: URL) => URL | null;

/**
 * Proxies as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say, in either case, the lower one first, as curl and Python read them. NO_PROXY
 * lists hosts, each for those below it too, with a port or without; * is every host.
 */
export function proxiesOf(env: Readonly<Record<string, string | undefined>>): Proxies {
  const variable = (name: string): string => env[name] || env[name.toUpperCase()] || "";
  const exempt = variable("no_proxy")
    .split(/[\s,]+/)
    .filter((entry) => entry !== "");
  return (address) => {
    const given = variable(address.protocol === "https:" ? "https_proxy" : "http_proxy") || variable("all_proxy");
    if (given === "" || exempt.some((entry) => covers(entry, address))) return null;
    const text = given.includes("://") ? given : `http://${given}`;
    if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol))
      throw new UnreachableError(
        `the environment names the proxy "${withoutSecret(given)}", which is none that can be used (http or https)`,
      );
    return new URL(text);
  };
}

/** A proxy's address without the name and password in it. */
function withoutSecret(address: string): string {
  return address.replace(/\/\/[^@/]*@/, "//");
}

function covers(entry: string, { hostname, port, protocol }: URL): boolean {
  if (entry === "*") return true;
  const [, host = "", entryPort] = /^(.*?)(?::(\d+))?$/.exec(entry.toLowerCase()) ?? [];
  if (entryPort !== undefined && entryPort !== (port || (protocol === "https:" ? "443" : "80"))) return false;
  const name = host.replace(/^\*?\./, "");
  return hostname === name || hostname.endsWith(`.${name}`);
}
