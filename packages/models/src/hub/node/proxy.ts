import { type ClientRequest, request as httpRequest, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { TransientError, UnreachableError } from "./retry.js";

/**
 * Begins a GET, through a proxy where there is one: https by a tunnel (CONNECT, RFC 9110 § 9.3.6), which sees neither address nor headers, http by
 * the whole address in the request line. Rejects where the proxy cannot be reached or refuses.
 */
export async function openRequest(address: URL, proxy: URL | null, options: RequestOptions): Promise<ClientRequest> {
  const isSecure = address.protocol === "https:";
  if (!proxy) return (isSecure ? httpsRequest : httpRequest)(address, options);
  const through: RequestOptions = {
    host: proxy.hostname.replace(/^\[|\]$/g, ""),
    port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
  };
  const send = proxy.protocol === "https:" ? httpsRequest : httpRequest;
  const login = proxy.username === "" ? {} : { "proxy-authorization": `Basic ${loginOf(proxy)}` };
  const authority = `${address.hostname}:${address.port || (isSecure ? 443 : 80)}`;
  if (!isSecure)
    return send({
      ...through,
      ...options,
      path: address.href,
      headers: { ...options.headers, ...login, host: address.host },
      agent: false,
    });
  const asked = send({
    ...through,
    ...signalOf(options),
    method: "CONNECT",
    path: authority,
    headers: { ...login, host: authority },
    agent: false,
  });
  const socket = await new Promise<Socket>((resolve, reject) => {
    asked.once("connect", (answer, socket) => {
      if (answer.statusCode === 200) return resolve(socket);
      socket.destroy();
      reject(new UnreachableError(`the proxy ${proxy.host} answers ${answer.statusCode}`));
    });
    asked.once("response", (answer) => {
      answer.destroy();
      reject(new UnreachableError(`the proxy ${proxy.host} answers ${answer.statusCode}`));
    });
    asked.once("error", reject);
    if (options.timeout)
      asked.setTimeout(options.timeout, () => asked.destroy(new TransientError(`the proxy ${proxy.host} does not answer`)));
    asked.end();
  });
  const name = address.hostname.replace(/^\[|\]$/g, "");
  const createConnection = (): Socket => connectTls({ socket, host: name, ...(isIP(name) === 0 && { servername: name }) });
  return httpsRequest(address, { ...options, agent: false, createConnection });
}

function signalOf({ signal }: RequestOptions): RequestOptions {
  return signal ? { signal } : {};
}

function loginOf({ username, password }: URL): string {
  return Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString("base64");
}
